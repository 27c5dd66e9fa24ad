/* Memory of devices: the checked front of the backends' copies. */
#include "backend/backend.h"
#include "core/log.h"

enum itera_status itera_buffer_create(struct itera_device *device, size_t bytes,
                                      struct itera_buffer **out)
{
    *out = NULL;
    enum itera_status status = device->backend->buffer_create(device, bytes, out);
    if (!status)
        device->allocated += (*out)->bytes;
    return status;
}

void itera_buffer_destroy(struct itera_buffer **buffer)
{
    if (*buffer) {
        (*buffer)->device->allocated -= (*buffer)->bytes;
        (*buffer)->device->backend->buffer_destroy(*buffer);
    }
    *buffer = NULL;
}

static enum itera_status check_range(const struct itera_buffer *buffer, size_t offset, size_t bytes)
{
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset)
        return ITERA_OK;
    return itera_fail(ITERA_ERR_ARGUMENT, "copy of %zu bytes at %zu in a buffer of %zu", bytes,
                      offset, buffer->bytes);
}

enum itera_status itera_buffer_upload(struct itera_buffer *buffer, size_t offset, const void *data,
                                      size_t bytes)
{
    enum itera_status status = check_range(buffer, offset, bytes);
    return status ? status : buffer->device->backend->upload(buffer, offset, data, bytes);
}

enum itera_status itera_buffer_download(struct itera_buffer *buffer, size_t offset, void *data,
                                        size_t bytes)
{
    enum itera_status status = check_range(buffer, offset, bytes);
    return status ? status : buffer->device->backend->download(buffer, offset, data, bytes);
}
