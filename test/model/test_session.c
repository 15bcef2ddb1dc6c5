/* Sessions through the public API: reuse, chunks, streams, limits and faults. */
#include <math.h>
#include <pthread.h>

#include "model/tiny.h"
#include "scratch.h"

#define QUESTION "USER: <image>\nWhat is in the picture? ASSISTANT:"

/* A model, a session, a picture and room for what they give. */
struct fixture {
    mmq_model *model;
    mmq_session *session;
    mmq_image *image;
    const mmq_image *images[2];
    mmq_prompt prompt;
    mmq_generate_request request;
};

static void open_fixture_at(struct fixture *f, const char *path, int32_t chunk, int32_t threads)
{
    mmq_load_options load = {.struct_size = sizeof load, .n_threads = threads};
    mmq_session_options options = {.struct_size = sizeof options, .chunk = chunk};

    memset(f, 0, sizeof *f);
    ASSERT_OK(mmq_load(&f->model, path, &load));
    ASSERT_OK(mmq_session_create(&f->session, f->model, &options));
    f->image = tiny_image(1);
    f->images[0] = f->image;
    f->prompt = (mmq_prompt){
        .struct_size = sizeof f->prompt, .text = QUESTION, .images = f->images, .n_images = 1};
    f->request = (mmq_generate_request){.struct_size = sizeof f->request,
                                        .prompt = &f->prompt,
                                        .max_new_tokens = 12,
                                        .ignore_eos = 1};
}

static void open_fixture(struct fixture *f, int32_t chunk, int32_t threads)
{
    open_fixture_at(f, source_path("test/golden/llava_tiny/model"), chunk, threads);
}

static void close_fixture(struct fixture *f)
{
    mmq_session_free(f->session);
    mmq_image_free(f->image);
    mmq_model_free(f->model);
}

/* Logits of every row that mmq_evaluate gives. */
struct logits {
    float *data;
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *row, size_t n_vocab)
{
    struct logits *logits = user;

    ck_assert_uint_eq(index * n_vocab, logits->n);
    logits->data = realloc(logits->data, (logits->n + n_vocab) * sizeof *row);
    memcpy(logits->data + logits->n, row, n_vocab * sizeof *row);
    logits->n += n_vocab;
    return 0;
}

/* Logits of 20 forced tokens after the fixture's prompt. */
static struct logits evaluate(struct fixture *f)
{
    int32_t targets[20];
    struct logits logits = {0};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &f->prompt,
                                    .targets = targets,
                                    .n_targets = 20,
                                    .on_logits = keep_logits,
                                    .logits_user = &logits};
    mmq_evaluation *evaluation;
    int i;

    for (i = 0; i < 20; i++)
        targets[i] = 5 + 7 * i;
    ASSERT_OK(mmq_evaluate(&evaluation, f->session, &request));
    mmq_evaluation_free(evaluation);
    return logits;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size_and_number_of_threads)
{
    static const struct {
        int32_t chunk, threads;
    } cases[] = {{512, 1}, {1, 1}, {7, 1}, {512, 2}, {7, 5}, {16, 2}};
    struct logits first = {0}, other;
    struct fixture f;
    size_t i;

    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_fixture(&f, cases[i].chunk, cases[i].threads);
        other = evaluate(&f);
        close_fixture(&f);
        if (i == 0) {
            first = other;
            continue;
        }
        ck_assert_uint_eq(other.n, first.n);
        ck_assert_mem_eq(other.data, first.data, first.n * sizeof *first.data);
        free(other.data);
    }
    free(first.data);
}
END_TEST

START_TEST(log_probabilities_are_those_of_the_logits)
{
    int32_t targets[3] = {9, 30, 77};
    struct logits logits = {0};
    struct fixture f;
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &f.prompt,
                                    .targets = targets,
                                    .n_targets = 3,
                                    .on_logits = keep_logits,
                                    .logits_user = &logits};
    mmq_evaluation *evaluation;
    const double *logprobs;
    const int32_t *top1;
    size_t n, n_vocab, i, j, best;
    double sum;

    open_fixture(&f, 0, 1);
    ASSERT_OK(mmq_evaluate(&evaluation, f.session, &request));
    logprobs = mmq_evaluation_logprobs(evaluation, &n);
    top1 = mmq_evaluation_top1(evaluation, &n);
    ck_assert_uint_eq(n, 3);
    n_vocab = logits.n / 3;
    for (i = 0; i < 3; i++) {
        const float *row = logits.data + i * n_vocab;

        for (j = 0, sum = 0, best = 0; j < n_vocab; j++) {
            sum += exp((double)row[j]);
            best = row[j] > row[best] ? j : best;
        }
        ck_assert_double_eq_tol(logprobs[i], (double)row[targets[i]] - log(sum), 1e-6);
        ck_assert_int_eq(top1[i], best);
    }
    /* No targets: the next token's row alone, and it is the same row. */
    request.n_targets = 0;
    request.targets = NULL;
    mmq_evaluation_free(evaluation);
    logits.n = 0;
    ASSERT_OK(mmq_evaluate(&evaluation, f.session, &request));
    ck_assert_uint_eq(logits.n, n_vocab);
    mmq_evaluation_free(evaluation);
    free(logits.data);
    close_fixture(&f);
}
END_TEST

START_TEST(a_second_question_encodes_nothing_again_and_equals_a_fresh_session)
{
    mmq_result_facts facts = {.struct_size = sizeof facts};
    mmq_result *first, *second, *fresh;
    const int32_t *a, *b;
    struct fixture f, g;
    size_t n, m;

    open_fixture(&f, 0, 0);
    open_fixture(&g, 0, 0);
    ASSERT_OK(mmq_generate(&first, f.session, &f.request));
    ASSERT_OK(mmq_result_info(&facts, first));
    ck_assert_int_eq(facts.n_pictures_encoded, 1);
    ck_assert_int_eq(facts.n_reused, 0);
    f.prompt.text = g.prompt.text = "USER: <image>\nWhat is green? ASSISTANT:";
    ASSERT_OK(mmq_generate(&second, f.session, &f.request));
    ASSERT_OK(mmq_result_info(&facts, second));
    ck_assert_int_eq(facts.n_pictures_encoded, 0);
    ck_assert_int_gt(facts.n_reused, 9);
    ASSERT_OK(mmq_generate(&fresh, g.session, &g.request));
    a = mmq_result_ids(second, &n);
    b = mmq_result_ids(fresh, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    ck_assert_str_eq(mmq_result_text(second), mmq_result_text(fresh));
    mmq_result_free(first);
    mmq_result_free(second);
    mmq_result_free(fresh);
    close_fixture(&f);
    close_fixture(&g);
}
END_TEST

START_TEST(another_picture_in_the_same_words_is_not_reused)
{
    mmq_result_facts facts = {.struct_size = sizeof facts};
    struct logits one, two;
    mmq_image *other = tiny_image(5), *same = tiny_image(1);
    mmq_result *result;
    struct fixture f;

    open_fixture(&f, 0, 0);
    one = evaluate(&f);
    f.images[0] = other;
    two = evaluate(&f);
    ck_assert_mem_ne(one.data, two.data, one.n * sizeof *one.data);
    free(two.data);
    f.images[0] = same; /* another handle with equal pixels is the same picture */
    two = evaluate(&f);
    ck_assert_mem_eq(one.data, two.data, one.n * sizeof *one.data);
    f.images[0] = f.image;
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    ASSERT_OK(mmq_result_info(&facts, result));
    ck_assert_int_eq(facts.n_pictures_encoded, 0);
    mmq_result_free(result);
    mmq_image_free(other);
    mmq_image_free(same);
    free(one.data);
    free(two.data);
    close_fixture(&f);
}
END_TEST

struct stream {
    char text[4096];
    size_t size, n_ids, calls, stop_after;
};

static int32_t take_piece(void *user, const char *text, size_t size, const int32_t *ids,
                          size_t n_ids)
{
    struct stream *stream = user;

    ck_assert_uint_lt(stream->size + size, sizeof stream->text);
    ck_assert(n_ids == 0 || ids != NULL);
    memcpy(stream->text + stream->size, text, size);
    stream->size += size;
    stream->n_ids += n_ids;
    return ++stream->calls == stream->stop_after;
}

/* Logits after a prompt of two pictures, whatever the session held before. */
static struct logits evaluate_two(struct fixture *f, mmq_image *first, mmq_image *second)
{
    f->images[0] = first;
    f->images[1] = second;
    f->prompt.text = "USER: <image>\n<image>\nWhich one is red? ASSISTANT:";
    f->prompt.n_images = 2;
    return evaluate(f);
}

START_TEST(pictures_kept_in_part_change_no_bit)
{
    /* Which pictures follow each other: none, the first, the second alone, or both are kept. */
    static const int turns[][2] = {{1, 2}, {1, 2}, {1, 3}, {4, 3}, {3, 3}, {3, 4}, {2, 1}, {1, 1}};
    mmq_image *images[5];
    struct logits one, two;
    struct fixture f, fresh;
    size_t i;

    open_fixture(&f, 7, 1);
    for (i = 0; i < 5; i++)
        images[i] = tiny_image((int)i);
    for (i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        open_fixture(&fresh, 0, 1);
        one = evaluate_two(&f, images[turns[i][0]], images[turns[i][1]]);
        two = evaluate_two(&fresh, images[turns[i][0]], images[turns[i][1]]);
        ck_assert_mem_eq(one.data, two.data, one.n * sizeof *one.data);
        free(one.data);
        free(two.data);
        close_fixture(&fresh);
    }
    for (i = 0; i < 5; i++)
        mmq_image_free(images[i]);
    close_fixture(&f);
}
END_TEST

START_TEST(truncation_anywhere_changes_no_bit)
{
    mmq_image *first = tiny_image(3), *second = tiny_image(4);
    struct logits whole, again;
    struct fixture f;
    int32_t length, n;

    open_fixture(&f, 16, 1);
    whole = evaluate_two(&f, first, second);
    length = mmq_session_length(f.session);
    for (n = 0; n <= length; n++) {
        ASSERT_OK(mmq_session_truncate(f.session, n)); /* within either picture too */
        ck_assert_int_eq(mmq_session_length(f.session), n);
        again = evaluate_two(&f, first, second);
        ck_assert_int_eq(mmq_session_length(f.session), length);
        ck_assert_mem_eq(again.data, whole.data, whole.n * sizeof *whole.data);
        free(again.data);
    }
    /* Cut within the first, then go on with another first: what was kept of it must go. */
    ASSERT_OK(mmq_session_truncate(f.session, 20));
    again = evaluate_two(&f, second, first);
    ck_assert_mem_ne(again.data, whole.data, whole.n * sizeof *whole.data);
    free(again.data);
    again = evaluate_two(&f, first, second);
    ck_assert_mem_eq(again.data, whole.data, whole.n * sizeof *whole.data);
    free(again.data);
    free(whole.data);
    mmq_image_free(first);
    mmq_image_free(second);
    close_fixture(&f);
}
END_TEST

/* A thread with a session of its own on a model that others use, too. */
struct worker {
    mmq_model *model;
    mmq_image *image;
    int seed;
    char text[4096];
};

static void *answer_often(void *user)
{
    struct worker *worker = user;
    const mmq_image *images[] = {worker->image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = QUESTION, .images = images, .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 12,
                                    .temperature = 3,
                                    .seed = (uint64_t)worker->seed,
                                    .ignore_eos = 1};
    mmq_session_options options = {.struct_size = sizeof options, .context = 256};
    mmq_session *session;
    mmq_result *result;
    int i;

    for (i = 0; i < 4; i++) {
        ASSERT_OK(mmq_session_create(&session, worker->model, &options));
        ASSERT_OK(mmq_generate(&result, session, &request));
        if (i == 0)
            snprintf(worker->text, sizeof worker->text, "%s", mmq_result_text(result));
        ck_assert_str_eq(worker->text, mmq_result_text(result));
        mmq_result_free(result);
        mmq_session_free(session);
    }
    return NULL;
}

START_TEST(sessions_of_several_threads_do_not_disturb_each_other)
{
    enum { N = 4 };
    mmq_load_options load = {.struct_size = sizeof load, .n_threads = 3};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_quantize_options options = {.struct_size = sizeof options, .format = "int8"};
    mmq_model *model = tiny_model(&load), *quantized;
    struct worker workers[N], alone;
    pthread_t threads[N];
    int i;

    for (i = 0; i < N; i++) { /* the first to come places */
        workers[i] = (struct worker){.model = model, .image = tiny_image(i), .seed = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, answer_often, &workers[i]), 0);
    }
    ASSERT_OK(mmq_model_info(&facts, model));
    ASSERT_OK(mmq_quantize_layerwise(&quantized, model, &options, NULL));
    for (i = 0; i < N; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    for (i = 0; i < N; i++) {
        alone = workers[i];
        answer_often(&alone);
        ck_assert_str_eq(alone.text, workers[i].text);
        mmq_image_free(workers[i].image);
    }
    mmq_model_free(quantized);
    mmq_model_free(model);
}
END_TEST

START_TEST(streamed_pieces_add_up_to_the_answer)
{
    struct stream stream = {0};
    mmq_result *result;
    struct fixture f;
    size_t n;

    open_fixture(&f, 0, 0);
    f.request.max_new_tokens = 40;
    f.request.on_text = take_piece;
    f.request.text_user = &stream;
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    mmq_result_ids(result, &n);
    ck_assert_uint_eq(n, 40);
    ck_assert_uint_eq(stream.n_ids, 40);
    ck_assert_uint_eq(stream.size, strlen(mmq_result_text(result)));
    ck_assert_mem_eq(stream.text, mmq_result_text(result), stream.size);
    ck_assert_int_eq(mmq_result_finish(result), MMQ_FINISH_LENGTH);
    ck_assert_str_eq(mmq_result_finish_name(result), "length");
    mmq_result_free(result);
    close_fixture(&f);
}
END_TEST

START_TEST(an_answer_ends_before_a_stop_string_and_nothing_of_it_is_streamed)
{
    struct stream stream = {0};
    const char *stops[2] = {"never to be seen", NULL};
    const char *at;
    char stop[8];
    mmq_result *whole, *cut;
    struct fixture f;
    size_t n;

    open_fixture(&f, 0, 0);
    f.request.max_new_tokens = 40;
    ASSERT_OK(mmq_generate(&whole, f.session, &f.request));
    ck_assert_uint_gt(strlen(mmq_result_text(whole)), 20);
    for (at = mmq_result_text(whole) + 10; (*at & 0xC0) == 0x80; at++)
        ; /* a stop string begins and ends with whole characters */
    for (n = 3; (at[n] & 0xC0) == 0x80; n++)
        ;
    snprintf(stop, sizeof stop, "%.*s", (int)n, at);
    at = strstr(mmq_result_text(whole), stop);
    stops[1] = stop;
    f.request.stop = stops;
    f.request.n_stop = 2;
    f.request.on_text = take_piece;
    f.request.text_user = &stream;
    ASSERT_OK(mmq_generate(&cut, f.session, &f.request));
    ck_assert_int_eq(mmq_result_finish(cut), MMQ_FINISH_STOP);
    ck_assert_uint_eq(strlen(mmq_result_text(cut)), (size_t)(at - mmq_result_text(whole)));
    ck_assert_uint_eq(stream.size, strlen(mmq_result_text(cut)));
    mmq_result_free(whole);
    mmq_result_free(cut);
    stops[0] = "";
    ASSERT_FAILS(MMQ_ERR_INVALID, "stop string 0", mmq_generate(&cut, f.session, &f.request));
    stops[0] = "\xa9t\xc3"; /* it would cut characters in two */
    ASSERT_FAILS(MMQ_ERR_INVALID, "UTF-8", mmq_generate(&cut, f.session, &f.request));
    close_fixture(&f);
}
END_TEST

/* Every part of a wild answer in turn, so that stops begin and end within tokens, between them,
 * and across characters of several bytes. */
START_TEST(a_stop_string_is_found_wherever_it_lies)
{
    mmq_result *whole, *cut;
    const char *text, *stops[1];
    char stop[16];
    struct fixture f;
    size_t size, begin, n;

    open_fixture(&f, 0, 1);
    f.request.max_new_tokens = 24;
    f.request.temperature = 9;
    f.request.seed = 11;
    ASSERT_OK(mmq_generate(&whole, f.session, &f.request));
    text = mmq_result_text(whole);
    size = strlen(text);
    f.request.stop = stops;
    f.request.n_stop = 1;
    f.request.on_text = take_piece;
    stops[0] = stop;
    for (begin = 0; begin < size; begin++)
        for (n = 1; n <= 9 && begin + n <= size; n += 4) {
            struct stream stream = {0};
            size_t end;

            if ((text[begin] & 0xC0) == 0x80 || (text[begin + n] & 0xC0) == 0x80)
                continue; /* no text of its own */
            snprintf(stop, sizeof stop, "%.*s", (int)n, text + begin);
            end = (size_t)(strstr(text, stop) - text);
            f.request.text_user = &stream;
            ASSERT_OK(mmq_generate(&cut, f.session, &f.request));
            ck_assert_int_eq(mmq_result_finish(cut), MMQ_FINISH_STOP);
            ck_assert_uint_eq(strlen(mmq_result_text(cut)), end);
            ck_assert_mem_eq(mmq_result_text(cut), text, end);
            ck_assert_uint_eq(stream.size, end);
            ck_assert_mem_eq(stream.text, text, end);
            mmq_result_free(cut);
        }
    mmq_result_free(whole);
    close_fixture(&f);
}
END_TEST

/* The tiny model with a zero byte before the D of its vocabulary, in ./zero. */
static void make_model_with_zero_byte(void)
{
    static const char d[] = "\"D\": ";
    size_t size, head;
    char *text = read_file(source_path("test/golden/llava_tiny/model/tokenizer.json"), &size);
    char *at = strstr(text, d);
    FILE *file;

    ck_assert_ptr_nonnull(at);
    head = (size_t)(at - text);
    ck_assert_int_eq(
        system(support_text("cp -r '%s' zero", source_path("test/golden/llava_tiny/model"))), 0);
    file = fopen("zero/tokenizer.json", "wb");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "%.*s\"\\u0000D\": %s", (int)head, text, at + strlen(d));
    ck_assert_int_eq(fclose(file), 0);
    free(text);
}

/* Tokens of byte-level vocabularies hold zero bytes; what follows them is looked through, too. */
START_TEST(a_stop_string_is_found_after_a_zero_byte)
{
    const char *stops[] = {"D"};
    struct stream stream = {0};
    mmq_result *result;
    struct fixture f;

    make_model_with_zero_byte();
    open_fixture_at(&f, "zero", 0, 1);
    f.request.max_new_tokens = 24;
    f.request.temperature = 9;
    f.request.on_text = take_piece;
    f.request.text_user = &stream;
    for (; !memchr(stream.text, 0, stream.size); f.request.seed++) {
        ck_assert_uint_lt(f.request.seed, 100);
        stream = (struct stream){0};
        ASSERT_OK(mmq_generate(&result, f.session, &f.request));
        mmq_result_free(result);
    }
    f.request.seed--;
    f.request.stop = stops;
    f.request.n_stop = 1;
    stream = (struct stream){0};
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    ck_assert_int_eq(mmq_result_finish(result), MMQ_FINISH_STOP);
    mmq_result_free(result);
    close_fixture(&f);
}
END_TEST

START_TEST(a_callback_or_a_raised_flag_ends_the_call_and_the_session_goes_on)
{
    struct stream stream = {.stop_after = 3};
    mmq_result *result, *again;
    mmq_cancel *cancel;
    struct fixture f;

    open_fixture(&f, 0, 0);
    ASSERT_OK(mmq_generate(&again, f.session, &f.request));
    ASSERT_OK(mmq_session_reset(f.session));
    f.request.on_text = take_piece;
    f.request.text_user = &stream;
    ASSERT_FAILS(MMQ_ERR_CALLBACK, "callback", mmq_generate(&result, f.session, &f.request));
    ck_assert_ptr_null(result);
    ck_assert_str_eq(mmq_session_error(f.session), mmq_last_error_message());
    ASSERT_OK(mmq_cancel_create(&cancel));
    mmq_cancel_raise(cancel);
    f.request.on_text = NULL;
    f.request.cancel = cancel;
    ASSERT_FAILS(MMQ_ERR_CANCELLED, "cancelled", mmq_generate(&result, f.session, &f.request));
    f.request.cancel = NULL;
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    ck_assert_str_eq(mmq_result_text(result), mmq_result_text(again));
    mmq_result_free(result);
    mmq_result_free(again);
    mmq_cancel_free(cancel);
    close_fixture(&f);
}
END_TEST

/* Raises the flag, or says no, at one call; counts them. */
struct ender {
    mmq_cancel *cancel;
    size_t calls, at;
    int says_no;
};

static int32_t end_at_piece(void *user, const char *text, size_t size, const int32_t *ids,
                            size_t n_ids)
{
    struct ender *ender = user;

    (void)text, (void)size, (void)ids, (void)n_ids;
    if (ender->calls++ != ender->at)
        return 0;
    if (!ender->says_no)
        mmq_cancel_raise(ender->cancel);
    return ender->says_no;
}

static int32_t end_at_row(void *user, size_t index, const float *logits, size_t n_vocab)
{
    (void)logits, (void)n_vocab;
    return end_at_piece(user, "", 0, NULL, index);
}

START_TEST(an_end_at_any_piece_leaves_a_session_that_goes_on)
{
    struct ender ender = {0};
    mmq_result *whole, *result;
    mmq_status status = MMQ_ERR_CALLBACK;
    struct fixture f;

    open_fixture(&f, 7, 1);
    ASSERT_OK(mmq_generate(&whole, f.session, &f.request));
    f.request.text_user = &ender;
    for (ender.at = 0; status != MMQ_OK; ender.at++)
        for (ender.says_no = 0; ender.says_no < 2; ender.says_no++) {
            ender.calls = 0;
            ASSERT_OK(mmq_cancel_create(&ender.cancel));
            f.request.cancel = ender.cancel;
            f.request.on_text = end_at_piece;
            status = mmq_generate(&result, f.session, &f.request);
            /* After the last token only the rest of the text is given: nothing is left to end. */
            ck_assert_uint_le(ender.calls, ender.at + (ender.says_no ? 1 : 2));
            if (status != MMQ_OK)
                ck_assert_int_eq(status, ender.says_no ? MMQ_ERR_CALLBACK : MMQ_ERR_CANCELLED);
            mmq_result_free(result);
            f.request.on_text = NULL;
            f.request.cancel = NULL;
            ASSERT_OK(mmq_generate(&result, f.session, &f.request));
            ck_assert_str_eq(mmq_result_text(result), mmq_result_text(whole));
            mmq_result_free(result);
            mmq_cancel_free(ender.cancel);
        }
    ck_assert_uint_gt(ender.at, 5);
    mmq_result_free(whole);
    close_fixture(&f);
}
END_TEST

START_TEST(an_end_at_any_row_leaves_a_session_that_goes_on)
{
    static const int32_t targets[] = {9, 30, 77, 80};
    struct ender ender = {.says_no = 1};
    struct logits whole, again;
    struct fixture f;
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &f.prompt,
                                    .targets = targets,
                                    .n_targets = 4,
                                    .on_logits = end_at_row,
                                    .logits_user = &ender};
    mmq_evaluation *evaluation;

    open_fixture(&f, 0, 1);
    whole = evaluate(&f);
    for (ender.at = 0; ender.at < 4; ender.at++) {
        ender.calls = 0;
        ASSERT_FAILS(MMQ_ERR_CALLBACK, "row", mmq_evaluate(&evaluation, f.session, &request));
        ck_assert_uint_eq(ender.calls, ender.at + 1);
        again = evaluate(&f);
        ck_assert_mem_eq(again.data, whole.data, whole.n * sizeof *whole.data);
        free(again.data);
    }
    free(whole.data);
    close_fixture(&f);
}
END_TEST

/* Asks for everything that would change the session under the call. */
static int32_t ask_for_more(void *user, const char *text, size_t size, const int32_t *ids,
                            size_t n_ids)
{
    struct fixture *f = user;
    mmq_evaluate_request evaluate = {.struct_size = sizeof evaluate, .prompt = &f->prompt};
    mmq_evaluation *evaluation;
    mmq_result *result;

    (void)text, (void)size, (void)ids, (void)n_ids;
    ck_assert_int_gt(mmq_session_length(f->session), 0);
    ASSERT_FAILS(MMQ_ERR_INVALID, "at work", mmq_session_reset(f->session));
    ASSERT_FAILS(MMQ_ERR_INVALID, "at work", mmq_generate(&result, f->session, &f->request));
    ASSERT_FAILS(MMQ_ERR_INVALID, "at work", mmq_evaluate(&evaluation, f->session, &evaluate));
    return 0;
}

START_TEST(a_callback_cannot_set_its_session_to_other_work)
{
    mmq_result *want, *have;
    struct fixture f;

    open_fixture(&f, 0, 1);
    ASSERT_OK(mmq_generate(&want, f.session, &f.request));
    f.request.on_text = ask_for_more;
    f.request.text_user = &f;
    ASSERT_OK(mmq_generate(&have, f.session, &f.request));
    ck_assert_str_eq(mmq_result_text(have), mmq_result_text(want));
    ASSERT_OK(mmq_session_reset(f.session));
    mmq_result_free(want);
    mmq_result_free(have);
    close_fixture(&f);
}
END_TEST

START_TEST(pictures_and_markers_must_be_as_many)
{
    mmq_result *result;
    struct fixture f;

    open_fixture(&f, 0, 0);
    f.prompt.n_images = 0;
    ASSERT_FAILS(MMQ_ERR_INVALID, "1 '<image>' for 0 pictures",
                 mmq_generate(&result, f.session, &f.request));
    f.prompt.n_images = 1;
    f.prompt.text = "USER: hello ASSISTANT:";
    ASSERT_FAILS(MMQ_ERR_INVALID, "0 '<image>' for 1 pictures",
                 mmq_generate(&result, f.session, &f.request));
    f.prompt.text = QUESTION;
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    mmq_result_free(result);
    close_fixture(&f);
}
END_TEST

START_TEST(a_full_context_is_a_status_for_a_prompt_and_a_finish_for_an_answer)
{
    mmq_session_options options = {.struct_size = sizeof options};
    mmq_result_facts facts = {.struct_size = sizeof facts};
    mmq_session *small;
    mmq_result *result;
    struct fixture f;
    size_t n;

    open_fixture(&f, 0, 0);
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    ASSERT_OK(mmq_result_info(&facts, result));
    mmq_result_free(result);
    options.context = facts.n_prompt - 1;
    ASSERT_OK(mmq_session_create(&small, f.model, &options));
    ASSERT_FAILS(MMQ_ERR_CONTEXT_FULL, "context", mmq_generate(&result, small, &f.request));
    ck_assert_ptr_null(result);
    mmq_session_free(small);
    options.context = facts.n_prompt + 4;
    ASSERT_OK(mmq_session_create(&small, f.model, &options));
    ASSERT_OK(mmq_generate(&result, small, &f.request));
    ck_assert_int_eq(mmq_result_finish(result), MMQ_FINISH_CONTEXT);
    mmq_result_ids(result, &n);
    ck_assert_uint_eq(n, 5); /* the last one is known but has no place */
    ck_assert_int_eq(mmq_session_length(small), options.context);
    mmq_result_free(result);
    mmq_session_free(small);
    close_fixture(&f);
}
END_TEST

START_TEST(truncate_forgets_the_tail_and_reset_everything)
{
    mmq_result_facts facts = {.struct_size = sizeof facts};
    mmq_result *result;
    struct fixture f;
    int32_t length;

    open_fixture(&f, 0, 0);
    ck_assert_int_eq(mmq_session_length(f.session), 0);
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    ASSERT_OK(mmq_result_info(&facts, result));
    mmq_result_free(result);
    length = mmq_session_length(f.session);
    ck_assert_int_eq(length, facts.n_prompt + 12 - 1); /* nothing has followed the last token yet */
    ASSERT_FAILS(MMQ_ERR_INVALID, "tokens", mmq_session_truncate(f.session, length + 1));
    ASSERT_FAILS(MMQ_ERR_INVALID, "tokens", mmq_session_truncate(f.session, -1));
    ASSERT_OK(mmq_session_truncate(f.session, 3));
    ck_assert_int_eq(mmq_session_length(f.session), 3);
    ASSERT_OK(mmq_session_reset(f.session));
    ck_assert_int_eq(mmq_session_length(f.session), 0);
    close_fixture(&f);
}
END_TEST

START_TEST(the_estimate_is_exact_and_a_limit_below_it_is_refused)
{
    mmq_session_options options = {.struct_size = sizeof options, .context = 128, .chunk = 32};
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_model *model = tiny_model(NULL);
    mmq_session *session, *second;

    ASSERT_OK(mmq_estimate(&memory, model, &options));
    ck_assert_uint_eq(memory.total,
                      memory.weights + memory.kv_cache + memory.activations + memory.scratch);
    mmq_model_free(model);
    load.memory_limit = memory.total;
    load.n_threads = 0;
    model = tiny_model(&load);
    ASSERT_OK(mmq_session_create(&session, model, &options));
    ASSERT_FAILS(MMQ_ERR_LIMIT, "0 left", mmq_session_create(&second, model, &options));
    mmq_session_free(session);
    ASSERT_OK(mmq_session_create(&session, model, &options)); /* what was given back can be taken */
    mmq_session_free(session);
    mmq_model_free(model);
    load.memory_limit = memory.total - 1;
    model = tiny_model(&load);
    ASSERT_FAILS(MMQ_ERR_LIMIT, "session", mmq_session_create(&session, model, &options));
    mmq_model_free(model);
    load.memory_limit = memory.weights - 1;
    model = tiny_model(&load);
    ASSERT_FAILS(MMQ_ERR_LIMIT, "weights", mmq_model_place(model));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "weights"));
    mmq_model_free(model);
}
END_TEST

START_TEST(a_session_keeps_its_model_alive)
{
    mmq_result *result;
    struct fixture f;

    open_fixture(&f, 0, 0);
    mmq_model_free(f.model);
    ASSERT_OK(mmq_generate(&result, f.session, &f.request));
    mmq_result_free(result);
    mmq_image_free(f.image); /* the session holds the picture too */
    mmq_session_free(f.session);
}
END_TEST

START_TEST(the_same_seed_gives_the_same_sampled_answer)
{
    mmq_result *a, *b, *c;
    struct fixture f;

    open_fixture(&f, 0, 0);
    f.request.temperature = 5;
    f.request.seed = 3;
    ASSERT_OK(mmq_generate(&a, f.session, &f.request));
    ASSERT_OK(mmq_generate(&b, f.session, &f.request));
    ck_assert_str_eq(mmq_result_text(a), mmq_result_text(b));
    f.request.seed = 4;
    ASSERT_OK(mmq_generate(&c, f.session, &f.request));
    ck_assert_str_ne(mmq_result_text(a), mmq_result_text(c));
    f.request.temperature = -1;
    mmq_result_free(c);
    ASSERT_FAILS(MMQ_ERR_INVALID, "temperature", mmq_generate(&c, f.session, &f.request));
    mmq_result_free(a);
    mmq_result_free(b);
    close_fixture(&f);
}
END_TEST

START_TEST(options_out_of_range_are_refused_by_name)
{
    mmq_session_options options = {.struct_size = sizeof options, .context = 1 << 30};
    mmq_model *model = tiny_model(NULL);
    mmq_session *session;

    ASSERT_FAILS(MMQ_ERR_INVALID, "context", mmq_session_create(&session, model, &options));
    options.context = 0;
    options.chunk = -1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "chunk", mmq_session_create(&session, model, &options));
    options.chunk = 0;
    options.mode = "fast";
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "'fast'", mmq_session_create(&session, model, &options));
    options.mode = "quick";
    ASSERT_FAILS(MMQ_ERR_INVALID, "'quick'", mmq_session_create(&session, model, &options));
    ck_assert_ptr_null(session);
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("session");
    TCase *tests = tcase_create("session");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size_and_number_of_threads);
    tcase_add_test(tests, log_probabilities_are_those_of_the_logits);
    tcase_add_test(tests, a_second_question_encodes_nothing_again_and_equals_a_fresh_session);
    tcase_add_test(tests, another_picture_in_the_same_words_is_not_reused);
    tcase_add_test(tests, pictures_kept_in_part_change_no_bit);
    tcase_add_test(tests, truncation_anywhere_changes_no_bit);
    tcase_add_test(tests, sessions_of_several_threads_do_not_disturb_each_other);
    tcase_add_test(tests, streamed_pieces_add_up_to_the_answer);
    tcase_add_test(tests, an_answer_ends_before_a_stop_string_and_nothing_of_it_is_streamed);
    tcase_add_test(tests, a_stop_string_is_found_wherever_it_lies);
    tcase_add_test(tests, a_stop_string_is_found_after_a_zero_byte);
    tcase_add_test(tests, a_callback_or_a_raised_flag_ends_the_call_and_the_session_goes_on);
    tcase_add_test(tests, an_end_at_any_piece_leaves_a_session_that_goes_on);
    tcase_add_test(tests, an_end_at_any_row_leaves_a_session_that_goes_on);
    tcase_add_test(tests, a_callback_cannot_set_its_session_to_other_work);
    tcase_add_test(tests, pictures_and_markers_must_be_as_many);
    tcase_add_test(tests, a_full_context_is_a_status_for_a_prompt_and_a_finish_for_an_answer);
    tcase_add_test(tests, truncate_forgets_the_tail_and_reset_everything);
    tcase_add_test(tests, the_estimate_is_exact_and_a_limit_below_it_is_refused);
    tcase_add_test(tests, a_session_keeps_its_model_alive);
    tcase_add_test(tests, the_same_seed_gives_the_same_sampled_answer);
    tcase_add_test(tests, options_out_of_range_are_refused_by_name);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
