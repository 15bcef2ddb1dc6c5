/*
 * libmmq: vision-language models in little memory.
 */
#ifndef MMQ_H
#define MMQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MMQ_API
#define MMQ_API __attribute__((visibility("default")))
#endif

/* 0 is success; errors are negative, in blocks of ten, and never change their meaning. */
typedef int32_t mmq_status;

#define MMQ_OK 0
/* the call */
#define MMQ_ERR_INVALID (-10)     /* a bad argument: NULL, out of range, a struct of an unknown size */
#define MMQ_ERR_STATE (-11)       /* right call, wrong moment */
#define MMQ_ERR_UNSUPPORTED (-12) /* valid, but this build or device does not run it */
/* resources */
#define MMQ_ERR_NOMEM (-20)        /* the allocator gave nothing */
#define MMQ_ERR_LIMIT (-21)        /* a limit of the caller or of the library would be passed */
#define MMQ_ERR_CONTEXT_FULL (-22) /* the session holds no more tokens */
/* files and what is in them */
#define MMQ_ERR_IO (-30)        /* cannot be opened, read or written */
#define MMQ_ERR_NOT_FOUND (-31) /* there is no such file, tensor or name */
#define MMQ_ERR_FORMAT (-32)    /* the bytes are not what they should be */
#define MMQ_ERR_EXISTS (-33)    /* the destination exists */
#define MMQ_ERR_MISMATCH (-34)  /* tensors missing, unused or of another shape than the family needs */
/* control */
#define MMQ_ERR_CANCELLED (-40) /* mmq_cancel_raise() was called */
#define MMQ_ERR_CALLBACK (-41)  /* a callback returned nonzero */
/* devices */
#define MMQ_ERR_DEVICE (-50)    /* the device failed */
#define MMQ_ERR_NO_DEVICE (-51) /* there is no such device */
/* the library itself */
#define MMQ_ERR_INTERNAL (-60) /* a promise inside the library was broken; a bug */

#ifdef __cplusplus
}
#endif

#endif
