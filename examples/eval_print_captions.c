/* The figures of captions. */
#include "eval_print.h"

#include <math.h>
#include <stdio.h>

/* ---- the table ------------------------------------------------------------------------------- */

/* A row of one figure: of the record, the reference and the candidate. NaN prints as "-". */
static void print_row(const struct eval_run *run, const char *name, double recorded,
                      double (*figure)(const struct eval_tally *), double scale, int decimals)
{
    int i;

    printf("%-22s %12.*f", name, decimals, recorded * scale);
    for (i = 0; i < (run->settings.candidate ? 2 : 1); i++) {
        double value = figure(&run->side[i].tally);

        if (isnan(value))
            printf(" %12s", "-");
        else
            printf(" %12.*f", decimals, value * scale);
    }
    putchar('\n');
}

static double captions_equal(const struct eval_tally *tally)
{
    return tally->captions > 0 ? (double)tally->captions_equal : NAN;
}

static double answers_as_recorded(const struct eval_tally *tally)
{
    return tally->questions > 0 ? (double)tally->answers_as_recorded : NAN;
}

static double same_token_count(const struct eval_tally *tally)
{
    return (double)tally->same_token_count;
}

static void print_worst(const struct eval_run *run, const char *name,
                        const struct eval_worst *worst)
{
    printf("  %-20s %12.6f  entry %zu (%s)\n", name, worst->value, worst->entry,
           run->record.entries[worst->entry].file);
}

static void print_side(const char *name, const struct eval_side *side, const char *path)
{
    eval_print_model(name, &side->m, path, side->chat_template ? "chat template" : "raw prompts");
}

void eval_print_captions(struct eval_run *run, double seconds)
{
    const struct eval_tally *tally = &run->measured->tally;
    struct eval_tally recorded;

    eval_tally_record(&recorded, &run->record, run->n);
    print_side("reference", &run->side[0], run->settings.reference);
    if (run->settings.candidate)
        print_side("candidate", &run->side[1], run->settings.candidate);
    printf("%zu pictures, %zu caption tokens, %zu questions, %.1f s\n\n", tally->pictures,
           tally->tokens, tally->questions, seconds);
    printf("%-22s %12s %12s%s\n", "", "record", "reference",
           run->settings.candidate ? "    candidate" : "");
    print_row(run, "caption loss", eval_caption_loss(&recorded), eval_caption_loss, 1, 4);
    print_row(run, "wrong-picture loss", eval_wrong_picture_loss(&recorded),
              eval_wrong_picture_loss, 1, 4);
    print_row(run, "token top-1, %", eval_token_top1(&recorded), eval_token_top1, 100, 2);
    print_row(run, "yes/no accuracy, %", eval_yes_no_accuracy(&recorded), eval_yes_no_accuracy, 100,
              2);
    print_row(run, "captions equal", captions_equal(&recorded), captions_equal, 1, 0);
    print_row(run, "answers as recorded", answers_as_recorded(&recorded), answers_as_recorded, 1,
              0);
    print_row(run, "token counts equal", same_token_count(&recorded), same_token_count, 1, 0);
    printf("\ngreatest deviation of an entry from the record\n");
    print_worst(run, "nll_sum", &tally->nll_deviation);
    print_worst(run, "wrong picture", &tally->wrong_deviation);
    print_worst(run, "yes/no margin", &tally->margin_deviation);
    if (run->settings.candidate)
        eval_print_divergence(&run->force.divergence, "caption");
}

/* ---- JSON ------------------------------------------------------------------------------------ */

void eval_print_captions_json(struct eval_run *run, double seconds)
{
    const struct eval_tally *tally = &run->measured->tally;
    struct eval_tally recorded;

    eval_tally_record(&recorded, &run->record, run->n);
    puts("{");
    eval_print_number("caption_loss", eval_caption_loss(tally));
    eval_print_number("wrong_picture_loss", eval_wrong_picture_loss(tally));
    eval_print_number("yes_no_accuracy", eval_yes_no_accuracy(tally));
    eval_print_count("captions", tally->captions);
    eval_print_count("captions_equal", tally->captions_equal);
    if (run->settings.candidate) {
        eval_print_json_divergence(&run->force.divergence);
        eval_print_number("reference_caption_loss", eval_caption_loss(&run->side[0].tally));
        eval_print_text("candidate", run->settings.candidate);
    }
    eval_print_text("reference", run->settings.reference);
    eval_print_text("device", run->measured->m.device);
    eval_print_text("mode", run->measured->m.mode);
    eval_print_count("pictures", tally->pictures);
    eval_print_count("tokens", tally->tokens);
    eval_print_count("token_counts_equal", tally->same_token_count);
    eval_print_count("questions", tally->questions);
    eval_print_count("answers_as_recorded", tally->answers_as_recorded);
    eval_print_number("token_top1", eval_token_top1(tally));
    eval_print_number("nll_deviation", tally->nll_deviation.value);
    eval_print_number("wrong_picture_deviation", tally->wrong_deviation.value);
    eval_print_number("margin_deviation", tally->margin_deviation.value);
    eval_print_number("recorded_caption_loss", eval_caption_loss(&recorded));
    eval_print_number("recorded_wrong_picture_loss", eval_wrong_picture_loss(&recorded));
    eval_print_number("recorded_yes_no_accuracy", eval_yes_no_accuracy(&recorded));
    printf(" \"seconds\": %.3f\n}\n", seconds);
}
