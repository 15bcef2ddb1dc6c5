// Describe a picture from C++17: describe MODEL IMAGE PROMPT [MAX_NEW_TOKENS]
//
// The C header is used as it is; handles go into std::unique_ptr, statuses become exceptions.
//   c++ -std=c++17 describe.cpp $(pkg-config --cflags --libs libmmq) -o describe
#include <mmq.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

struct Free {
    void operator()(mmq_model *p) const { mmq_model_free(p); }
    void operator()(mmq_session *p) const { mmq_session_free(p); }
    void operator()(mmq_image *p) const { mmq_image_free(p); }
    void operator()(mmq_result *p) const { mmq_result_free(p); }
};
template <class T> using Handle = std::unique_ptr<T, Free>;

void check(mmq_status status)
{
    if (status != MMQ_OK)
        throw std::runtime_error(std::string(mmq_status_name(status)) + ": " +
                                 mmq_last_error_message());
}

// Call a function that makes a handle: make<mmq_model>(mmq_load, path, options).
template <class T, class F, class... Args> Handle<T> make(F create, Args... args)
{
    T *made = nullptr;
    check(create(&made, args...));
    return Handle<T>(made);
}

// Pieces as they come; what a callback throws may not pass through C.
int32_t print_piece(void *, const char *text, size_t size, const int32_t *, size_t) noexcept
{
    std::cout.write(text, static_cast<std::streamsize>(size)).flush();
    return std::cout.good() ? 0 : 1;
}

void describe(const char *path, const char *picture, const char *text, int32_t n_tokens)
{
    auto model = make<mmq_model>(mmq_load, path, nullptr);
    auto session = make<mmq_session>(mmq_session_create, model.get(), nullptr);
    auto image = make<mmq_image>(mmq_image_read_file, picture, nullptr);
    const mmq_image *images[] = {image.get()};

    mmq_prompt prompt{};
    prompt.struct_size = sizeof prompt;
    prompt.text = text;
    prompt.images = images;
    prompt.n_images = 1;
    mmq_generate_request request{};
    request.struct_size = sizeof request;
    request.prompt = &prompt;
    request.max_new_tokens = n_tokens;
    request.on_text = print_piece;
    auto result = make<mmq_result>(mmq_generate, session.get(), &request);
    std::cout << '\n';
}

} // namespace

int main(int argc, char **argv)
{
    if (argc < 4) {
        std::cerr << "usage: describe MODEL IMAGE PROMPT [MAX_NEW_TOKENS]\n";
        return 2;
    }
    try {
        describe(argv[1], argv[2], argv[3], argc > 4 ? std::atoi(argv[4]) : 0);
    } catch (const std::exception &error) {
        std::cerr << "describe: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
