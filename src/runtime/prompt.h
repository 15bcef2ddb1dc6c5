/*
 * From a conversation to the tokens that a session runs: the folder's chat
 * template, the tokenizer, and one token per picture row.
 */
#ifndef MMQI_RUNTIME_PROMPT_H
#define MMQI_RUNTIME_PROMPT_H

#include "model/model.h"

enum { MMQI_MAX_AXES = 3 };

/* One place of a timeline. */
struct mmqi_token {
    int32_t id;
    int32_t picture; /* index in the list of pictures beside it; -1 for text */
    int32_t row;     /* of that picture's block; -1 for text */
    /* Of its rope on each axis: a function of the tokens before it. Text has the same on all. */
    int32_t position[MMQI_MAX_AXES];
};

struct mmqi_tokens {
    struct mmqi_token *data;
    size_t n, capacity;
    int32_t most; /* the greatest position of all tokens on any axis */
};

/* What a prompt says: messages when chat.n_messages > 0, else raw text; pictures in order. */
struct mmqi_prompt {
    struct mmqi_chat_input chat;
    const char *text;
    struct mmqi_image *const *images;
    size_t n_images;
    bool parse_special; /* special tokens spelled in the messages' texts are special */
};

/* A token of the prompt's text after what is there: its position is one past the greatest of the
 * last token's, but for time. */
int32_t mmqi_tokens_add(struct mmqi_tokens *tokens, int32_t id);
/* A token of the answer: one past the greatest of all positions. That is another only behind a
 * video that lasts longer than all that follows it; the reference counts so. */
int32_t mmqi_tokens_answer(struct mmqi_tokens *tokens, int32_t id);
/*
 * Run number `run` of a picture's rows, which `order` picks from its block (NULL: as they lie
 * there). With one axis they count on like text. With three (M-RoPE) all begin where text would go
 * on: time stands still, in a video but from view to view; row and column add their place in the
 * grid; what follows goes on past the longer side.
 */
int32_t mmqi_tokens_add_run(struct mmqi_tokens *tokens, int32_t id, int32_t index,
                            const struct mmqi_picture *picture, int32_t run, const int32_t *order,
                            int32_t n_axes);
void mmqi_tokens_free(struct mmqi_tokens *tokens);

/* The prompt in words; *text is freed with mmqi_free(). MMQ_ERR_UNSUPPORTED: messages without a
 * template. */
int32_t mmqi_prompt_text(char **text, size_t *size, const struct mmqi_model *model,
                         const struct mmqi_prompt *prompt);

/*
 * The tokens of a prompt; picture indices count prompt->images.
 *
 *   MMQ_ERR_INVALID  markers and pictures differ in number
 *   MMQ_ERR_FORMAT   the tokenizer reads other markers in a text that the family wrote for pictures
 */
int32_t mmqi_prompt_tokens(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                           const struct mmqi_prompt *prompt);

#endif
