/*
 * A program as a user writes it: built outside the tree against an installed
 * libmmq. It describes a picture, checks what the API says on the way, and
 * prints the answer.
 *
 *   describe MODEL IMAGE PROMPT MAX_NEW_TOKENS
 */
#include <mmq.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const char *what, mmq_status status)
{
    fprintf(stderr, "%s: %s: %s\n", what, mmq_status_name(status), mmq_last_error_message());
    return 1;
}

static int answer(mmq_model *model, const mmq_image *image, const char *text, int32_t n_tokens)
{
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = text, .images = images, .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = n_tokens,
                                    .ignore_eos = 1};
    mmq_session *session = NULL;
    mmq_result *result = NULL;
    size_t n_ids = 0;
    int failed = 1;
    mmq_status status;

    status = mmq_session_create(&session, model, NULL);
    if (status != MMQ_OK)
        return complain("session", status);
    status = mmq_generate(&result, session, &request);
    if (status != MMQ_OK) {
        complain("generate", status);
        goto done;
    }
    mmq_result_ids(result, &n_ids);
    if (n_ids != (size_t)n_tokens || mmq_result_finish(result) != MMQ_FINISH_LENGTH) {
        fprintf(stderr, "%zu tokens, finish %s\n", n_ids, mmq_result_finish_name(result));
        goto done;
    }
    printf("%s\n", mmq_result_text(result));
    failed = 0;
done:
    mmq_result_free(result);
    mmq_session_free(session);
    return failed;
}

int main(int argc, char **argv)
{
    mmq_model *model = NULL;
    mmq_image *image = NULL;
    int failed = 1;
    mmq_status status;

    if (argc != 5)
        return 2;
    if (mmq_version() >> 16 != MMQ_VERSION_MAJOR) {
        fprintf(stderr, "header %d, library %s\n", MMQ_VERSION_MAJOR, mmq_version_string());
        return 1;
    }
    /* A failure first: the handles that follow do not suffer from it. */
    if (mmq_load(&model, "no/such/folder", NULL) == MMQ_OK || model != NULL ||
        strstr(mmq_last_error_message(), "no/such/folder") == NULL) {
        fprintf(stderr, "a missing folder: %s\n", mmq_last_error_message());
        return 1;
    }
    status = mmq_load(&model, argv[1], NULL);
    if (status != MMQ_OK) {
        complain(argv[1], status);
        goto done;
    }
    status = mmq_image_read_file(&image, argv[2], NULL);
    if (status != MMQ_OK) {
        complain(argv[2], status);
        goto done;
    }
    failed = answer(model, image, argv[3], (int32_t)atoi(argv[4]));
done:
    mmq_image_free(image);
    mmq_model_free(model);
    return failed;
}
