/* mmq_image: the public name of struct mmqi_image. */
#include "api/api.h"
#include "core/mem.h"

enum { MMQI_MAX_IMAGE_FILE = 1 << 30 };

static struct mmqi_image *core_of(const mmq_image *image)
{
    return (struct mmqi_image *)image;
}

static int32_t take_limits(struct mmqi_image_limits *limits, const mmq_image_options *options)
{
    mmq_image_options o;
    int32_t status = MMQI_TAKE(&o, options, "mmq_image_options");

    limits->max_pixels = o.max_pixels;
    return status;
}

mmq_status mmq_image_read_memory(mmq_image **out, const void *data, size_t size,
                                 const mmq_image_options *options)
{
    struct mmqi_image_limits limits;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || (!data && size > 0))
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_image_read_memory: out or data is NULL");
    status = take_limits(&limits, options);
    if (status != MMQ_OK)
        return status;
    return mmqi_image_decode((struct mmqi_image **)out, "picture", data, size, &limits);
}

static int32_t read_file(char **data, size_t *size, const char *path)
{
    struct mmqi_os_file *file;
    uint64_t bytes;
    int32_t status = mmqi_os_open_read(&file, path);

    if (status != MMQ_OK)
        return status;
    bytes = mmqi_os_file_size(file);
    if (bytes > MMQI_MAX_IMAGE_FILE) {
        status = mmqi_fail(MMQ_ERR_LIMIT, "%s: %llu bytes are too many for a picture", path,
                           (unsigned long long)bytes);
        goto done;
    }
    *size = (size_t)bytes;
    *data = mmqi_alloc(*size);
    if (!*data)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for %zu bytes", path, *size);
    else
        status = mmqi_os_read_at(file, 0, *data, *size);
done:
    mmqi_os_close(file);
    return status;
}

mmq_status mmq_image_read_file(mmq_image **out, const char *path, const mmq_image_options *options)
{
    struct mmqi_image_limits limits;
    char *data = NULL;
    size_t size = 0;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !path)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_image_read_file: out or path is NULL");
    status = take_limits(&limits, options);
    if (status == MMQ_OK)
        status = read_file(&data, &size, path);
    if (status == MMQ_OK)
        status = mmqi_image_decode((struct mmqi_image **)out, path, data, size, &limits);
    mmqi_free(data);
    return status;
}

mmq_status mmq_image_from_pixels(mmq_image **out, const uint8_t *pixels, int32_t width,
                                 int32_t height, int32_t channels, size_t row_bytes,
                                 const mmq_image_options *options)
{
    struct mmqi_image_limits limits;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !pixels)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_image_from_pixels: out or pixels is NULL");
    status = take_limits(&limits, options);
    if (status != MMQ_OK)
        return status;
    return mmqi_image_from_pixels((struct mmqi_image **)out, pixels, width, height, channels,
                                  row_bytes, &limits);
}

mmq_status mmq_image_from_frames(mmq_image **out, const mmq_image *const *frames, size_t n_frames,
                                 const mmq_video_options *options)
{
    mmq_video_options o;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !frames)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_image_from_frames: out or frames is NULL");
    status = MMQI_TAKE(&o, options, "mmq_video_options");
    if (status != MMQ_OK)
        return status;
    return mmqi_image_from_frames((struct mmqi_image **)out, (struct mmqi_image *const *)frames,
                                  n_frames, o.fps == 0.0 ? 24.0 : o.fps);
}

mmq_status mmq_image_size(int32_t *width, int32_t *height, const mmq_image *image)
{
    if (width)
        *width = 0;
    if (height)
        *height = 0;
    if (!width || !height || !image)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_image_size: an argument is NULL");
    *width = core_of(image)->width;
    *height = core_of(image)->height;
    return MMQ_OK;
}

void mmq_image_free(mmq_image *image)
{
    mmqi_image_release(core_of(image));
}
