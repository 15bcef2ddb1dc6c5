/* src/text/chat*: templates against what Jinja makes of them, and templates made to do harm. */
#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "support.h"
#include "text/chat.h"

static const struct mmqi_chat_part ask[] = {{1, NULL}, {0, "What is this?"}, {0, " Say."}};
static const struct mmqi_chat_part answer[] = {{0, "A dog."}};
static const struct mmqi_chat_part rules[] = {{0, "Be brief."}};
static const struct mmqi_chat_message talk[] = {
    {"system", rules, 1}, {"user", ask, 3}, {"assistant", answer, 1}, {"user", ask + 1, 1}};
static const struct mmqi_chat_input input = {talk, 4, true, "<s>", NULL};

/* Compile and render; the status, and the text or NULL, to be freed with mmqi_free(). */
static int32_t render_input(const char *source, size_t source_size,
                            const struct mmqi_chat_input *with, char **text, size_t *size)
{
    struct mmqi_chat *chat = NULL;
    int32_t status = mmqi_chat_compile(&chat, "template", source, source_size);

    *text = NULL;
    *size = 0;
    if (status == MMQ_OK)
        status = mmqi_chat_render(chat, text, size, with);
    else
        ck_assert_ptr_null(chat);
    ck_assert_msg((status == MMQ_OK) == (*text != NULL), "status and text disagree");
    mmqi_chat_free(chat);
    return status;
}

static void expect(const char *source, const char *expected)
{
    char *text;
    size_t size;
    int32_t status = render_input(source, strlen(source), &input, &text, &size);

    ck_assert_msg(status == MMQ_OK, "%s: %s", source, mmqi_message());
    ck_assert_msg(strcmp(text, expected) == 0, "%s\ngives\n%s\nnot\n%s", source, text, expected);
    ck_assert_uint_eq(size, strlen(expected));
    mmqi_free(text);
}

static void refuse(const char *source, int32_t expected, const char *said)
{
    char *text;
    size_t size;
    int32_t status = render_input(source, strlen(source), &input, &text, &size);

    ck_assert_msg(status == expected, "%.200s: status %d (%s), not %d", source, (int)status,
                  status ? mmqi_message() : text, (int)expected);
    ck_assert_msg(strstr(mmqi_message(), said), "'%s' lacks '%s'", mmqi_message(), said);
    mmqi_free(text);
}

/* ---- the templates of real folders ---- */

/* Messages of a golden case; the arrays are the caller's. */
static size_t read_messages(const json_t *list, struct mmqi_chat_message *messages,
                            struct mmqi_chat_part (*parts)[8])
{
    json_t *message, *part;
    size_t i, j;

    json_array_foreach(list, i, message)
    {
        json_array_foreach(json_object_get(message, "content"), j, part)
        {
            const char *type = json_string_value(json_object_get(part, "type"));

            parts[i][j].is_image = strcmp(type, "image") == 0   ? 1
                                   : strcmp(type, "video") == 0 ? 2
                                                                : 0;
            parts[i][j].text = json_string_value(json_object_get(part, "text"));
        }
        messages[i].role = json_string_value(json_object_get(message, "role"));
        messages[i].parts = parts[i];
        messages[i].n_parts = j;
    }
    return i;
}

/* The template of a model's folder, in either of the two files it may be in. */
static char *read_template(const char *folder)
{
    const char *path = shared_path(support_text("%s/chat_template.json", folder));
    json_t *root = path ? json_load_file(path, 0, NULL) : NULL;
    char *text = NULL;
    FILE *file;

    if (root) {
        text = strdup(json_string_value(json_object_get(root, "chat_template")));
        json_decref(root);
        return text;
    }
    file = fopen(shared_path(support_text("%s/chat_template.jinja", folder)), "rb");
    ck_assert_ptr_nonnull(file);
    text = calloc(1 << 16, 1);
    ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, file), 0);
    fclose(file);
    return text;
}

static size_t check_case(const char *name)
{
    char *source = read_template(support_text("golden/%s/model", name)), *text;
    json_t *root =
        json_load_file(shared_path(support_text("golden/%s/golden.json", name)), 0, NULL);
    json_t *prompt;
    size_t i, size;

    json_array_foreach(json_object_get(root, "prompts"), i, prompt)
    {
        struct mmqi_chat_message messages[8];
        struct mmqi_chat_part parts[8][8] = {{{0}}};
        struct mmqi_chat_input with = {
            messages, read_messages(json_object_get(prompt, "messages"), messages, parts), true,
            NULL, NULL};

        ck_assert_int_eq(render_input(source, strlen(source), &with, &text, &size), MMQ_OK);
        ck_assert_str_eq(text, json_string_value(json_object_get(prompt, "rendered")));
        mmqi_free(text);
    }
    json_decref(root);
    free(source);
    return i;
}

START_TEST(prompts_of_the_llava_cases_are_rendered_as_transformers_does)
{
    static const char *const cases[] = {"llava", "llava_v5", "llava_wide", "llava_next"};
    size_t i;

    if (!shared_path("golden/llava"))
        SKIP("../shared/golden is absent");
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_uint_eq(check_case(cases[i]), 3);
}
END_TEST

START_TEST(the_hub_template_of_llava_is_rendered)
{
    expect("{% for message in messages %}{% if message['role'] != 'system' %}"
           "{{ message['role'].upper() + ': '}}{% endif %}{# Render all images first #}"
           "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
           "{{ '<image>\n' }}{% endfor %}{# Render all text next #}"
           "{% if message['role'] != 'assistant' %}"
           "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
           "{{ content['text'] + ' '}}{% endfor %}{% else %}"
           "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
           "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}"
           "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
           "Be brief. USER: <image>\nWhat is this?  Say. ASSISTANT: A dog. USER: What is this? "
           "ASSISTANT:");
    expect("{%- for m in messages -%}{%- if m['role'] != 'system' -%}"
           "{{- m['role'] | upper + ': ' -}}{%- endif -%}"
           "{%- for c in m['content'] if c['type'] == 'image' -%}{{- '<image>\\n' -}}"
           "{%- endfor -%}{%- for c in m['content'] if c['type'] == 'text' -%}"
           "{{- c['text'] + ' ' -}}{%- endfor -%}{%- endfor -%}"
           "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}",
           "Be brief. USER: <image>\nWhat is this?  Say. ASSISTANT: A dog. USER: What is this? "
           "ASSISTANT:");
}
END_TEST

/* ---- the language ---- */

struct example {
    const char *source, *text;
};

static void expect_all(const struct example *examples, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        expect(examples[i].source, examples[i].text);
}

#define EXPECT_ALL(examples) expect_all(examples, sizeof(examples) / sizeof *(examples))

START_TEST(white_space_around_tags_goes_as_jinja_says)
{
    static const struct example examples[] = {
        {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
        {"a  {% if true %}  b{% endif %}\n", "a    b"},
        {"a \n {{ 1 }}\n b", "a \n 1\n b"},
        {"a \n {{- 1 -}} \n b", "a1b"},
        {"a \n {%- if 1 -%} \n b {%- endif %} c", "ab c"},
        {"  {%+ if 1 +%}\n  b{% endif %}", "  \n  b"},
        {"  {# x #}\n  y", "  y"},
        {"x {#- y -#} z", "xz"},
        {"{% if 1 %}\n\n{% endif %}", "\n"},
        {"a\r\nb\r{% if 1 %}\r\nc{% endif %}", "a\nb\nc"},
        {"{{ 'a\r\nb' }}\n\n", "a\nb\n"},
        {"{ {{ 1 }} } % # {a", "{ 1 } % # {a"},
        {"", ""},
        {"\n", ""},
        {"{##}", ""}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(strings_are_read_as_python_reads_them)
{
    static const struct example examples[] = {{"{{ 'a\\nb\\t\\'\\\"\\\\' }}", "a\nb\t'\"\\"},
                                              {"{{ \"it's\" }}", "it's"},
                                              {"{{ 'raw\nline' }}", "raw\nline"},
                                              {"{{ '\\x41\\u00e9\\U0001F600\\101' }}",
                                               "A\xC3\xA9\xF0\x9F\x98\x80"
                                               "A"},
                                              {"{{ '\\d\\%' }}", "\\d\\%"},
                                              {"{{ 'a\\\nb' }}", "ab"},
                                              {"{{ 'a' \"b\" 'c' }}", "abc"},
                                              {"{{ '%}}}' }}", "%}}}"}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(operators_bind_and_compute_as_in_jinja)
{
    static const struct example examples[] = {
        {"{{ 1 + 2 - 4 }} {{ 'a' + 'b' }} {{ 1 ~ 'x' ~ none ~ true }}", "-1 ab 1xNoneTrue"},
        {"{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -2 + 5 }}", "1 2 -2 3"},
        {"{{ 'a' + 'b' | upper }} {{ ('a' + 'b') | upper }}", "aB AB"},
        {"{{ 1 == 1 and 2 != 1 or false }}", "True"},
        {"{{ 1 < 2 }}{{ 2 <= 2 }}{{ 1 > 2 }}{{ 'b' >= 'a' }}", "TrueTrueFalseTrue"},
        {"{{ 'ell' in 'hello' }} {{ 'x' not in 'hello' }} {{ 2 in [1, 2] }}", "True True True"},
        {"{{ 'type' in messages[1].content[0] }} {{ 'text' in messages[1].content[0] }}",
         "True False"},
        {"{{ not 1 == 2 }} {{ not (true and false) }} {{ not not 1 }}", "True True True"},
        {"{{ '' or 'x' }} {{ 0 and y.z }} {{ none or 0 }}", "x 0 0"},
        {"{{ 1 == true }} {{ 1 == '1' }} {{ none == none }} {{ u == v }}", "True False True True"},
        {"{{ 'a' if 1 else 'b' }}{{ 'a' if 0 else 'b' }}{{ 'a' if 0 }}{{ u.v if u else 'w' }}",
         "abw"},
        {"{{ (1 + 2) ~ (3) }}", "33"},
        {"{{ -1 | default(2) }} {{ 1 + -1 }}", "-1 0"}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(parts_of_values_are_reached_by_name_index_and_slice)
{
    static const struct example examples[] = {
        {"{{ messages[0]['role'] }} {{ messages[-1].role }} {{ messages[0].content[0].text }}",
         "system user Be brief."},
        {"{% for m in messages[1:] %}{{ m.role[0] }}{% endfor %}", "uau"},
        {"{% for m in messages[1:-1] %}{{ m.role[0] }}{% endfor %}", "ua"},
        {"{% for m in messages[:1] %}{{ m.role }}{% endfor %}{{ messages[9:] | length }}",
         "system0"},
        {"{{ 'h\xC3\xA9llo'[1] }}{{ 'h\xC3\xA9llo'[1:3] }}{{ 'h\xC3\xA9llo'[-2:] }}",
         "\xC3\xA9\xC3\xA9llo"},
        {"[{{ messages[7] }}{{ messages['x'] }}{{ messages[0].nothing }}{{ 'a'[1] }}]", "[]"},
        {"{{ messages[1].content[0]['type'] }} {{ messages[1]['content'][1]['type'] }}",
         "image text"},
        {"{{ bos_token }}{{ eos_token }}{{ eos_token is defined }}", "<s>False"}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(filters_methods_and_tests_do_what_their_names_say)
{
    static const struct example examples[] = {
        {"{{ 'aB\xC3\xA9' | upper }} {{ 'AB\xC3\x89'|lower }} {{ 'aB'.upper() }} {{ 'aB'.lower() "
         "}}",
         "AB\xC3\x89 ab\xC3\xA9 AB ab"},
        {"{{ 'uSER' | capitalize }} {{ '\xC3\xA9T\xC3\x89'.capitalize() }} {{ '' | capitalize "
         "}}{{ 1 | capitalize }}",
         "User \xC3\x89t\xC3\xA9 1"},
        {"[{{ ' \n\xC2\xA0x y\t ' | trim }}] [{{ '  x '.strip() }}] [{{ 12 | trim }}]",
         "[x y] [x] [12]"},
        {"{{ messages | length }} {{ 'h\xC3\xA9' | length }} {{ u | length }} {{ [] | count }}",
         "4 2 0 0"},
        {"{{ u | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }}", "d  d"},
        {"{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "2"},
        {"{{ 'y' if messages | selectattr('role', 'equalto', 'nobody') }}", "y"},
        {"{{ u is defined }} {{ messages is defined }} {{ u is not defined }} {{ u is undefined }}",
         "False True True True"},
        {"{{ 'a' is string }} {{ messages[0].content is string }} {{ none is none }}",
         "True False True"},
        {"{{ messages is iterable }} {{ messages[0] is mapping }} {{ 1 is not none }}",
         "True True True"},
        {"{{ not 'a' is string }} {{ 'a' ~ 1 is none }}", "False aFalse"}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(statements_control_what_is_written)
{
    static const struct example examples[] = {
        {"{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}"
         "{{ loop.length }} {% endfor %}",
         "10TrueFalse4 21FalseFalse4 32FalseFalse4 43FalseTrue4 "},
        {"{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} "
         "{% endfor %}",
         "1/2 2/2 "},
        {"{% for m in messages %}{% for c in m.content %}{{ loop.index }}{% endfor %}"
         "{{ loop.index }} {% endfor %}",
         "11 1232 13 14 "},
        {"{% for x in [] %}x{% else %}none{% endfor %}{% for x in u %}x{% else %}!{% endfor %}",
         "none!"},
        {"{% for x in [1, 2] %}{{ x }}{% else %}none{% endfor %}.", "12."},
        {"{% for x in ['a', 'b',] %}{{ loop.previtem }}{{ x }}{{ loop.nextitem }} {% endfor %}",
         "ab ab "},
        {"{% if 0 %}a{% elif 1 %}b{% elif 1 %}c{% else %}d{% endif %}", "b"},
        {"{% if 0 %}a{% elif 0 %}b{% else %}d{% endif %}{% if u %}e{% endif %}", "d"},
        {"{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "2"},
        {"{% set x = 1 %}{% for y in [1, 2] %}{% set x = x + y %}{{ x }}{% endfor %}{{ x }}",
         "231"},
        {"{% if 1 %}{% set x = 5 %}{% endif %}{{ x }}", "5"},
        {"{% generation %}a{% if 1 %}b{% endif %}{% endgeneration %}c", "abc"}};

    EXPECT_ALL(examples);
}
END_TEST

START_TEST(raise_exception_refuses_with_its_text)
{
    refuse("{% if messages[0].role == 'system' %}\n"
           "{{ raise_exception('no system ' + 'prompt') }}{% endif %}",
           MMQ_ERR_INVALID, "line 2, column 4: no system prompt");
    expect("{% if messages[0].role != 'system' %}{{ raise_exception('x') }}{% endif %}ok", "ok");
}
END_TEST

/* ---- what is refused ---- */

START_TEST(a_namespace_keeps_what_a_loop_sets_in_it)
{
    expect("{% set ns = namespace(n=0, last='-') %}"
           "{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}{% endfor %}"
           "{{ ns.n }} {{ ns.last }}",
           "4 user");
    expect("{% set a = namespace() %}{% set b = a %}{% set b.x = 'y' %}{{ a.x }}{{ a['x'] }}",
           "yy");
    expect("{% set a = namespace() %}{{ a.x is defined }}{{ 'in' if a else 'out' }}", "Falsein");
    refuse("{% set a = 1 %}{% set a.x = 2 %}", MMQ_ERR_INVALID, "no namespace");
    refuse("{% set a.x = 2 %}", MMQ_ERR_INVALID, "no namespace");
    refuse("{% set a = namespace(1) %}", MMQ_ERR_FORMAT, "a name");
    refuse("{% set a = namespace(x) %}", MMQ_ERR_FORMAT, "'='");
    refuse("{% set a = namespace(x=1 %}", MMQ_ERR_FORMAT, "')'");
    refuse("{% set a = namespace(a=1,b=1,c=1,d=1,e=1,f=1,g=1,h=1,i=1,j=1,k=1,l=1,m=1,n=1,o=1,p=1,"
           "q=1) %}",
           MMQ_ERR_LIMIT, "too many names");
    refuse("{{ namespace() }}", MMQ_ERR_UNSUPPORTED, "as text");
    refuse("{% set a = namespace() %}{% for m in messages %}{% set a.l = loop %}{% endfor %}",
           MMQ_ERR_UNSUPPORTED, "'loop' in a namespace");
}
END_TEST

START_TEST(a_construct_outside_the_subset_is_named_with_line_and_column)
{
    static const struct example examples[] = {
        {"ab\n {% macro f() %}{% endmacro %}", "line 2, column 5: the statement 'macro'"},
        {"{% include 'x' %}", "'include'"},
        {"{% import 'x' as y %}", "'import'"},
        {"{% extends 'x' %}", "'extends'"},
        {"{% block x %}{% endblock %}", "'block'"},
        {"{% call f() %}{% endcall %}", "'call'"},
        {"{% filter upper %}x{% endfilter %}", "'filter'"},
        {"{% raw %}{% endraw %}", "'raw'"},
        {"{% with x = 1 %}{% endwith %}", "'with'"},
        {"{% do x %}", "'do'"},
        {"{% for x in y %}{% break %}{% endfor %}", "'break'"},
        {"{% set x %}y{% endset %}", "'set'"},
        {"{% set a, b = x %}", "'set'"},
        {"{{ dict(x=1) }}", "the function 'dict'"},
        {"{% for a, b in x %}{% endfor %}", "line 1, column 9"},
        {"{% for a in x recursive %}{% endfor %}", "'recursive'"},
        {"{{ range(3) }}", "line 1, column 4: the function 'range'"},
        {"{{ strftime_now('%Y') }}", "'strftime_now'"},
        {"{{ x | tojson }}", "line 1, column 8: with these arguments the filter 'tojson'"},
        {"{{ x | trim('a') }}", "'trim'"},
        {"{{ x | default(value='a') }}", "by name"},
        {"{{ x.split(',') }}", "the method 'split'"},
        {"{{ x.strip('a') }}", "the method 'strip'"},
        {"{{ x.items() }}", "the method 'items'"},
        {"{{ x is sameas(1) }}", "the test 'sameas'"},
        {"{{ {'a': 1} }}", "a dict"},
        {"{{ (1, 2) }}", "a tuple"},
        {"{{ 1.5 }}", "plain integer"},
        {"{{ 99999999999 }}", "2^31"},
        {"{{ 2 * 3 }}", "the operator '*'"},
        {"{{ 4 // 2 }}", "the operator '//'"},
        {"{{ 2 ** 3 }}", "the operator '**'"},
        {"{{ 1 < 2 < 3 }}", "second comparison"},
        {"{{ x[1:2:3] }}", "step"},
        {"{{ x(1) }}", "the function 'x'"},
        {"{{ x.y()() }}", "the method 'y'"},
        {"{{ '\\N{DASH}' }}", "by name"},
        {"{{ messages }}", "line 1, column 4: a list or a message as text"},
        {"{{ messages[0] == messages[1] }}", "comparing"},
        {"{{ [1] | selectattr('a', 'in', 'b') }}", "'selectattr'"},
        {"{% for x in 'abc' %}{% endfor %}", "no list"}};
    size_t i;

    for (i = 0; i < sizeof examples / sizeof *examples; i++)
        refuse(examples[i].source, MMQ_ERR_UNSUPPORTED, examples[i].text);
}
END_TEST

START_TEST(a_broken_template_is_refused_with_line_and_column)
{
    static const struct example examples[] = {
        {"a{{", "a tag without its end"},
        {"{{ 1", "without its end"},
        {"x\n{% if 1 %}y", "line 2, column 4: a block without its end"},
        {"{% for x in y %}", "a block without its end"},
        {"{# x", "a comment without its end"},
        {"{{ 'x }}", "a string without its end"},
        {"{% endif %}", "does not belong"},
        {"{% if 1 %}{% endfor %}", "does not belong"},
        {"{% for x in y %}{% endif %}", "does not belong"},
        {"{% else %}", "does not belong"},
        {"{% if 1 %}{% else %}{% else %}{% endif %}", "does not belong"},
        {"{% if 1 %}{% else %}{% elif 1 %}{% endif %}", "after 'else'"},
        {"{% generation %}{% else %}{% endgeneration %}", "does not belong"},
        {"{% endgeneration %}", "does not belong"},
        {"{{ }}", "a value"},
        {"{{ 1 2 }}", "'2' where the end of the tag"},
        {"{{ (1 }}", "')'"},
        {"{{ x[] }}", "a value"},
        {"{{ [1 2] }}", "',' or ']'"},
        {"{{ 1 + }}", "a value"},
        {"{{ x not 1 }}", "'in'"},
        {"{{ x | }}", "the name of a filter"},
        {"{{ x is }}", "the name of a test"},
        {"{{ x is string is string }}", "second test"},
        {"{{ x. }}", "a name"},
        {"{% %}", "statement"},
        {"{% for in x %}{% endfor %}", ""},
        {"{% for x y %}{% endfor %}", "'in'"},
        {"{% if %}{% endif %}", "a value"},
        {"{% endif x %}", ""},
        {"{{ '\\x4' }}", "escape"},
        {"{{ '\\ud800' }}", "no character"},
        {"{{ \x01 }}", "byte 0x01"},
        {"{{ \xC3\xA9 }}", "byte 0xc3"},
        {"{{ raise_exception() }}", "one text"}};
    size_t i;

    for (i = 0; i < sizeof examples / sizeof *examples; i++)
        refuse(examples[i].source, MMQ_ERR_FORMAT, examples[i].text);
}
END_TEST

START_TEST(operations_on_wrong_values_are_errors)
{
    static const struct example examples[] = {
        {"{{ u.x }}", "undefined"},
        {"{{ u[0] }}", "undefined"},
        {"{{ u + 'x' }}", "two integers"},
        {"{{ 'x' + 1 }}", "two integers"},
        {"{{ 1 % 0 }}", "by zero"},
        {"{{ 'x' < 1 }}", "order"},
        {"{{ 1 in 2 }}", "'in'"},
        {"{{ u.upper() }}", "no text"},
        {"{{ (1).upper() }}", "no text"},
        {"{{ 1 | length }}", "length"},
        {"{{ 1[1:] }}", "slice"},
        {"{% for x in 1 %}{% endfor %}", "no list"},
        {"{{ messages | selectattr('a', 'eq', 1) | length }}", "length"},
        {"{{ -'x' }}", "two integers"}};
    size_t i;

    for (i = 0; i < sizeof examples / sizeof *examples; i++)
        refuse(examples[i].source, MMQ_ERR_INVALID, examples[i].text);
}
END_TEST

/* `n` times `unit`, then `end`, as a template to be refused. */
static void refuse_repeated(const char *begin, const char *unit, size_t n, const char *end,
                            int32_t status, const char *said)
{
    char *text = calloc(strlen(begin) + n * strlen(unit) + strlen(end) + 1, 1), *at = text;
    size_t i;

    at += sprintf(at, "%s", begin);
    for (i = 0; i < n; i++)
        at += sprintf(at, "%s", unit);
    sprintf(at, "%s", end);
    refuse(text, status, said);
    free(text);
}

START_TEST(nesting_size_and_names_are_bounded)
{
    char *names = calloc(1, 1 << 16), *at = names;
    size_t i;

    refuse_repeated("", "{% if 1 %}", 33, "", MMQ_ERR_LIMIT, "blocks in each other");
    refuse_repeated("", "{% for x in y %}", 5000, "", MMQ_ERR_LIMIT, "blocks in each other");
    refuse_repeated("{{ ", "(", 33, "1", MMQ_ERR_LIMIT, "expressions in each other");
    refuse_repeated("{{ ", "[", 50000, "1", MMQ_ERR_LIMIT, "expressions in each other");
    refuse_repeated("{{ ", "not ", 50000, "1", MMQ_ERR_LIMIT, "expressions in each other");
    refuse_repeated("{{ x", "[x", 50000, "1", MMQ_ERR_LIMIT, "expressions in each other");
    refuse_repeated("{{ ", "1 if 1 else ", 5000, "1", MMQ_ERR_LIMIT, "expressions in each other");
    refuse_repeated("{{ [", "1,", 40, "] }}", MMQ_ERR_LIMIT, "values in a list");
    refuse_repeated("", "x", (256 << 10) + 1, "", MMQ_ERR_LIMIT, "a template of");
    for (i = 0; i < 300; i++)
        at += sprintf(at, "{{ x%zu }}", i);
    refuse(names, MMQ_ERR_LIMIT, "names");
    free(names);
}
END_TEST

START_TEST(long_chains_are_no_nesting)
{
    char *text = calloc(1, 1 << 17), *at = text;
    char *expected = calloc(1, 1 << 13);
    size_t i;

    at += sprintf(at, "{{ ''");
    for (i = 0; i < 5000; i++) {
        at += sprintf(at, " + 'x'");
        expected[i] = 'x';
    }
    sprintf(at, " | upper | lower }}");
    expect(text, expected);
    free(text);
    free(expected);
}
END_TEST

START_TEST(a_template_that_would_hang_or_fill_memory_meets_a_limit)
{
    struct mmqi_chat_message *many = calloc(3000, sizeof *many);
    struct mmqi_chat_part big = {0, NULL};
    struct mmqi_chat_message one = {"user", &big, 1};
    struct mmqi_chat_input with = {many, 3000, true, NULL, NULL};
    const char *nested = "{% for a in messages %}{% for b in messages %}{% for c in messages %}"
                         "{% endfor %}{% endfor %}{% endfor %}";
    const char *doubling = "{% set s = messages[0].content[0].text %}";
    const char *search = "{% for a in [1,2,3,4,5,6,7,8,9] %}{% for b in [1,2,3,4,5,6,7,8,9] %}"
                         "{{ 'q' in messages[0].content[0].text }}{% endfor %}{% endfor %}";
    char *text, *source = calloc(1, 8192);
    size_t i, size;

    for (i = 0; i < 3000; i++)
        many[i].role = "user";
    ck_assert_int_eq(render_input(nested, strlen(nested), &with, &text, &size), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "steps"));
    big.text = calloc(1, (1 << 20) + 1);
    memset((char *)big.text, 'x', 1 << 20);
    with = (struct mmqi_chat_input){&one, 1, true, NULL, NULL};
    strcpy(source, doubling);
    for (i = 0; i < 40; i++)
        strcat(source, "{% set s = s + s %}");
    ck_assert_int_eq(render_input(source, strlen(source), &with, &text, &size), MMQ_ERR_LIMIT);
    source[0] = '\0';
    for (i = 0; i < 40; i++)
        strcat(source, "{{ messages[0].content[0].text }}");
    ck_assert_int_eq(render_input(source, strlen(source), &with, &text, &size), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "16 MiB"));
    ck_assert_int_eq(render_input(search, strlen(search), &with, &text, &size), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "steps"));
    free((char *)big.text);
    free(many);
    free(source);
}
END_TEST

static const char everything[] =
    "{%- set x = 'a' ~ 1 -%}{% for m in messages[1:] if m.role in ['user', 'assistant'] %}\n"
    "{{ (m['role'] | upper + ': ').strip() if not loop.last else m.role.lower() }}\n"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}"
    "{{- c.text[:-1] + '\\n' -}}{% endgeneration %}{% else %}{# none #}{% endfor %}\n"
    "{% if loop.index0 % 2 == 0 and x is defined or y %}{{ bos_token }}{% elif -1 < 2 %}z"
    "{% endif %}{% endfor %}";

START_TEST(every_cut_and_every_changed_byte_of_a_template_is_survived)
{
    char source[sizeof everything], *text;
    size_t i, bit, size, n_refused = 0;

    for (i = 0; i < sizeof everything; i++) {
        render_input(everything, i, &input, &text, &size);
        mmqi_free(text);
        for (bit = 0; bit < 8 && i + 1 < sizeof everything; bit++) {
            memcpy(source, everything, sizeof source);
            source[i] = (char)(source[i] ^ 1 << bit);
            n_refused += render_input(source, sizeof source - 1, &input, &text, &size) != MMQ_OK;
            mmqi_free(text);
        }
    }
    ck_assert_uint_gt(n_refused, 1000);
}
END_TEST

struct scarce {
    size_t left, live;
};

static void *scarce_alloc(void *user, size_t size)
{
    struct scarce *scarce = user;

    if (scarce->left == 0)
        return NULL;
    scarce->left--;
    scarce->live++;
    return malloc(size);
}

static void scarce_free(void *user, void *block)
{
    struct scarce *scarce = user;

    scarce->live--;
    free(block);
}

START_TEST(a_refused_allocation_is_a_status_and_leaks_nothing)
{
    struct scarce scarce = {0, 0};
    struct mmqi_mem_hooks hooks = {scarce_alloc, scarce_free, &scarce};
    int32_t status = MMQ_ERR_NOMEM;
    size_t n, size;
    char *text;

    for (n = 0; status != MMQ_OK && n < 1000; n++) {
        scarce.left = n;
        mmqi_mem_enter(&hooks);
        status = render_input(everything, sizeof everything - 1, &input, &text, &size);
        mmqi_free(text);
        mmqi_mem_enter(NULL);
        ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
        ck_assert_uint_eq(scarce.live, 0);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_uint_gt(n, 5);
}
END_TEST

START_TEST(a_conversation_may_be_empty_and_text_any_bytes)
{
    static const struct mmqi_chat_part odd[] = {{0, "\xFF\xFE"}, {0, NULL}, {1, "ignored"}};
    static const struct mmqi_chat_message messages[] = {{"user", odd, 3}, {"", NULL, 0}};
    struct mmqi_chat_input with = {NULL, 0, false, NULL, NULL};
    const char *source = "{% for m in messages %}{% for c in m.content %}<{{ c.text | upper }}>"
                         "{% endfor %}{% endfor %}{{ messages | length }}";
    char *text;
    size_t size;

    ck_assert_int_eq(render_input(source, strlen(source), &with, &text, &size), MMQ_OK);
    ck_assert_str_eq(text, "0");
    mmqi_free(text);
    with = (struct mmqi_chat_input){messages, 2, false, NULL, NULL};
    ck_assert_int_eq(render_input(source, strlen(source), &with, &text, &size), MMQ_OK);
    ck_assert_str_eq(text, "<\xFF\xFE><><>2");
    mmqi_free(text);
    mmqi_chat_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("chat");
    TCase *tests = tcase_create("language"), *limits = tcase_create("limits");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, prompts_of_the_llava_cases_are_rendered_as_transformers_does);
    tcase_add_test(tests, the_hub_template_of_llava_is_rendered);
    tcase_add_test(tests, white_space_around_tags_goes_as_jinja_says);
    tcase_add_test(tests, strings_are_read_as_python_reads_them);
    tcase_add_test(tests, operators_bind_and_compute_as_in_jinja);
    tcase_add_test(tests, parts_of_values_are_reached_by_name_index_and_slice);
    tcase_add_test(tests, filters_methods_and_tests_do_what_their_names_say);
    tcase_add_test(tests, statements_control_what_is_written);
    tcase_add_test(tests, raise_exception_refuses_with_its_text);
    tcase_add_test(tests, a_conversation_may_be_empty_and_text_any_bytes);
    suite_add_tcase(suite, tests);
    tcase_set_timeout(limits, 20);
    tcase_add_test(limits, a_construct_outside_the_subset_is_named_with_line_and_column);
    tcase_add_test(limits, a_namespace_keeps_what_a_loop_sets_in_it);
    tcase_add_test(limits, a_broken_template_is_refused_with_line_and_column);
    tcase_add_test(limits, operations_on_wrong_values_are_errors);
    tcase_add_test(limits, nesting_size_and_names_are_bounded);
    tcase_add_test(limits, long_chains_are_no_nesting);
    tcase_add_test(limits, a_template_that_would_hang_or_fill_memory_meets_a_limit);
    tcase_add_test(limits, every_cut_and_every_changed_byte_of_a_template_is_survived);
    tcase_add_test(limits, a_refused_allocation_is_a_status_and_leaks_nothing);
    suite_add_tcase(suite, limits);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
