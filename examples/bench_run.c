#include "bench_run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- what the devices reach ---- */

/* Seconds that a device's share of the weights takes at each rate; negative: not measured. */
static mmq_status add_device(struct bench_rates *seconds, double *weights, const mmq_model *model,
                             int32_t index, const char *mode, uint64_t bytes)
{
    mmq_session_options options = {.struct_size = sizeof options, .mode = mode};
    mmq_device_memory memory = {.struct_size = sizeof memory};
    mmq_rates rates = {.struct_size = sizeof rates};
    mmq_status status = mmq_estimate_device(&memory, model, &options, index);
    double share = (double)memory.weights + 1, product;

    if (status == MMQ_OK)
        status = mmq_measure_device(&rates, model, index, bytes);
    if (status != MMQ_OK)
        return status;
    product =
        strcmp(memory.mode, "fast") == 0 ? rates.fast_flop_per_second : rates.exact_flop_per_second;
    *weights += share;
    seconds->read += share / rates.read_bytes_per_second;
    seconds->copy += share / rates.copy_bytes_per_second;
    seconds->product =
        product > 0 && seconds->product >= 0 ? seconds->product + share / product : -1;
    return MMQ_OK;
}

static void take_most(double *most, double rate)
{
    if (rate > *most)
        *most = rate;
}

mmq_status measure_rates(struct bench_rates *best, const mmq_model *model, const char *mode,
                         uint64_t bytes)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    struct bench_rates seconds = {0, 0, 0};
    double weights = 0;
    mmq_status status = mmq_model_info(&facts, model);

    for (int32_t i = 0; i < facts.n_devices && status == MMQ_OK; i++)
        status = add_device(&seconds, &weights, model, i, mode, bytes);
    if (status != MMQ_OK)
        return status;
    take_most(&best->read, weights / seconds.read);
    take_most(&best->copy, weights / seconds.copy);
    if (seconds.product > 0)
        take_most(&best->product, weights / seconds.product);
    return MMQ_OK;
}

/* ---- what there is ---- */

static void count_format(struct bench_figures *figures, const mmq_tensor_facts *t)
{
    int i;

    for (i = 0; i < figures->n_formats; i++)
        if (strcmp(figures->formats[i].name, t->format) == 0)
            break;
    if (i == MOST_FORMATS)
        return;
    figures->formats[i].name = t->format;
    figures->formats[i].bytes += t->bytes;
    if (i == figures->n_formats)
        figures->n_formats++;
}

static void count_product(struct bench_figures *figures, const mmq_tensor_facts *t)
{
    int i;

    figures->row_products += 2.0 * (double)t->rows * (double)t->cols;
    for (i = 0; i < figures->n_products; i++)
        if (figures->products[i].rows == t->rows && figures->products[i].cols == t->cols)
            break;
    if (i == MOST_PRODUCTS)
        return;
    figures->products[i].rows = t->rows;
    figures->products[i].cols = t->cols;
    figures->products[i].count++;
    if (i == figures->n_products)
        figures->n_products++;
}

/* Decoding reads every weight of the decoder once, but one row of the embedding; a head that is
 * tied reads the embedding instead. Vectors are f32 when placed. */
mmq_status count_weights(struct bench_figures *figures, const mmq_model *model)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_tensor_facts t = {.struct_size = sizeof t};
    uint64_t embed_bytes = 0;
    mmq_status status = mmq_model_info(&facts, model);

    for (int32_t i = 0; i < facts.n_tensors && status == MMQ_OK; i++) {
        status = mmq_model_tensor_info(&t, model, i);
        if (status != MMQ_OK)
            return status;
        count_format(figures, &t);
        if (strncmp(t.name, "language.", 9) != 0)
            continue;
        if (strcmp(t.name, "language.embed") == 0) {
            embed_bytes = t.bytes;
        } else if (strcmp(t.name, "language.head") == 0) {
            figures->prompt_products = 2.0 * (double)t.rows * (double)t.cols;
            figures->token_bytes += t.bytes > 0 ? t.bytes : embed_bytes;
        } else if (strcmp(t.role, "linear") == 0) {
            count_product(figures, &t);
            figures->token_bytes += t.bytes;
        } else {
            figures->token_bytes += (uint64_t)(t.rows * t.cols) * 4;
        }
    }
    return status;
}

/* ---- a prompt of so many tokens ---- */

static void fill_text(char *text, int n, bool letters)
{
    for (int i = 0; i < n; i++) {
        if (letters)
            *text++ = (char)('a' + (i * 7 + i / 26) % 26);
        else
            text = stpcpy(text, " the");
    }
    *text = '\0';
}

/* Text of `n_tokens` tokens, or as near as repeating a word comes; NULL with a status. */
static char *make_prompt(mmq_status *status, const mmq_model *model, int n_tokens, bool letters)
{
    char *text = malloc((size_t)n_tokens * 16 + 16);
    int n = n_tokens, try;
    size_t got;
    int32_t *ids;

    *status = text ? MMQ_OK : MMQ_ERR_NOMEM;
    for (try = 0; try < 8 && *status == MMQ_OK; try++) {
        fill_text(text, n, letters);
        *status = mmq_tokenize(&ids, &got, model, text, SIZE_MAX, 1);
        if (*status != MMQ_OK)
            break;
        mmq_ids_free(ids);
        if ((int)got == n_tokens)
            break;
        n += n_tokens - (int)got;
        n = n < 1 ? 1 : n > 3 * n_tokens ? 3 * n_tokens : n;
    }
    if (*status == MMQ_OK)
        return text;
    free(text);
    return NULL;
}

/* ---- runs ---- */

static void take_least(double *least, uint64_t nanoseconds)
{
    double seconds = (double)nanoseconds * 1e-9;

    if (*least == 0 || seconds < *least)
        *least = seconds;
}

/* One answer from an empty session; its facts. */
static mmq_status answer(mmq_result_facts *facts, mmq_session *session, const char *text,
                         const mmq_image *image, int n_tokens)
{
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = text, .images = &image, .n_images = image != NULL};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = n_tokens,
                                    .ignore_eos = 1};
    mmq_result *result = NULL;
    mmq_status status = mmq_session_reset(session);

    if (status == MMQ_OK)
        status = mmq_generate(&result, session, &request);
    facts->struct_size = sizeof *facts;
    if (status == MMQ_OK)
        status = mmq_result_info(facts, result);
    mmq_result_free(result);
    return status;
}

/* The first token of an answer comes from the prefill: one more is asked for than is timed. */
static mmq_status run_text(struct bench_figures *figures, mmq_session *session, const char *text,
                           const struct bench_settings *settings)
{
    mmq_result_facts facts;
    mmq_status status = MMQ_OK;

    for (int i = 0; i < settings->n_tries && status == MMQ_OK; i++) {
        status = answer(&facts, session, text, NULL, settings->n_decode + 1);
        if (status != MMQ_OK)
            return status;
        figures->n_prompt = facts.n_prompt;
        figures->n_decode = facts.n_generated - 1;
        take_least(&figures->prefill_seconds, facts.prefill_nanoseconds);
        if (figures->n_decode > 0)
            take_least(&figures->decode_seconds, facts.decode_nanoseconds);
    }
    return status;
}

static mmq_status make_picture(mmq_image **out)
{
    enum { SIDE = 400 };
    uint8_t *pixels = malloc((size_t)SIDE * SIDE * 3);
    mmq_status status;

    if (!pixels)
        return MMQ_ERR_NOMEM;
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        pixels[i] = (uint8_t)((i * 37 + i / 1200 * 11) >> 2);
    status = mmq_image_from_pixels(out, pixels, SIDE, SIDE, 3, 0, NULL);
    free(pixels);
    return status;
}

static mmq_status run_vision(struct bench_figures *figures, const mmq_model *model,
                             mmq_session *session, const struct bench_settings *settings)
{
    mmq_model_facts model_facts = {.struct_size = sizeof model_facts};
    mmq_result_facts facts;
    mmq_image *image = NULL;
    char *text = NULL;
    size_t size;
    mmq_status status = mmq_model_info(&model_facts, model);

    if (status == MMQ_OK) /* the model's own marker */
        status = mmq_detokenize(&text, &size, model, &model_facts.image_token, 1, 0);
    if (status == MMQ_OK)
        status = make_picture(&image);
    for (int i = 0; i < settings->n_tries && status == MMQ_OK; i++) {
        status = answer(&facts, session, text, image, 1);
        if (status == MMQ_OK)
            take_least(&figures->encode_seconds, facts.encode_nanoseconds);
    }
    mmq_image_free(image);
    mmq_text_free(text);
    return status;
}

static mmq_status place(struct bench_figures *figures, mmq_model *model)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    struct timespec begin, end;
    mmq_status status;

    clock_gettime(CLOCK_MONOTONIC, &begin);
    status = mmq_model_place(model);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (status == MMQ_OK)
        status = mmq_model_info(&facts, model);
    figures->placed_bytes = facts.placed_bytes;
    figures->load_seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
    return status;
}

/* Tokens of a session beside those of the prompt and of the answer. */
enum { SPARE_TOKENS = 16, USUAL_PROMPT = 512 };

/* The rows to prefill where none are asked for: as many as the model's context has room for. */
static mmq_status choose_prompt(int *n, const mmq_model *model,
                                const struct bench_settings *settings)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_status status = mmq_model_info(&facts, model);
    int room = facts.max_context - settings->n_decode - SPARE_TOKENS;

    *n = settings->n_prompt;
    if (*n < 0)
        *n = room < 1 ? 1 : room < USUAL_PROMPT ? room : USUAL_PROMPT;
    return status;
}

/* A session that holds the longest run: prompt and answer, or a picture with its neighbours. */
static mmq_status open_session(mmq_session **out, mmq_model *model, int n_prompt,
                               const struct bench_settings *settings)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_session_options options = {.struct_size = sizeof options, .mode = settings->mode};
    mmq_status status = mmq_model_info(&facts, model);
    int32_t text = n_prompt + settings->n_decode + SPARE_TOKENS;
    int32_t picture = settings->vision ? facts.image_rows + SPARE_TOKENS : 0;

    options.context = text > picture ? text : picture;
    return status == MMQ_OK ? mmq_session_create(out, model, &options) : status;
}

mmq_status run_bench(struct bench_figures *figures, mmq_model *model,
                     const struct bench_settings *settings)
{
    mmq_session *session = NULL;
    char *text = NULL;
    int n_prompt = 0;
    mmq_status status = place(figures, model);

    if (status == MMQ_OK)
        status = count_weights(figures, model);
    if (status == MMQ_OK)
        status = choose_prompt(&n_prompt, model, settings);
    if (status == MMQ_OK)
        status = open_session(&session, model, n_prompt, settings);
    if (status == MMQ_OK)
        figures->mode = mmq_session_mode(session);
    if (status == MMQ_OK && n_prompt > 0)
        text = make_prompt(&status, model, n_prompt, settings->letters);
    if (status == MMQ_OK && text)
        status = run_text(figures, session, text, settings);
    if (status == MMQ_OK && settings->vision)
        status = run_vision(figures, model, session, settings);
    free(text);
    mmq_session_free(session);
    return status;
}
