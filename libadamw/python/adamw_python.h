/* SPDX-License-Identifier: MIT
 *
 * adamw_python.h - the functions of libadamw that only pyadamw calls. They inspect many tensors of a Python framework in
 * one call.
 *
 * This header is private. It is not installed, and it is not part of the ABI that adamw.h promises. The library exports
 * its functions in a separate version node, ADAMW_PYTHON_PRIVATE. They may change or disappear in any version. A caller
 * must first compare adamw_python_version() with ADAMW_PYTHON_VERSION. If that function is missing or returns another
 * number, the caller must not use the others. The library must not know Python: the caller passes the functions that do.
 */
#ifndef ADAMW_PYTHON_H
#define ADAMW_PYTHON_H

#include "../../include/adamw.h"

/* Changes with every change of the declarations in this file. */
#define ADAMW_PYTHON_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* Returns the ADAMW_PYTHON_VERSION of the loaded library. */
ADAMW_API int32_t adamw_python_version(void);

/* The description that adamw_describe_tensors() gives of one tensor, without its address. Tensors of equal form have equal
 * bytes here. */
typedef struct adamw_tensor_form {
  int64_t numel;        /* number of elements */
  uint64_t shape;       /* a hash of the sizes, in order */
  int32_t device_type;  /* DLDeviceType: 1 is the CPU, 2 CUDA */
  int32_t device_id;
  uint8_t dtype_code;   /* DLDataTypeCode: 2 is float, 4 bfloat */
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int32_t contiguous;   /* 1 if the elements lie side by side in the order of the dimensions, otherwise 0 */
} adamw_tensor_form;

/* Fills the DLTensor (dlpack.h, version 1) at `dl_tensor` with a view of `object`. Returns 0 on success. It is the member
 * dltensor_from_py_object_no_sync of a DLPackExchangeAPI, which some versions of torch have in
 * Tensor.__dlpack_c_exchange_api__. */
typedef int (*adamw_dlpack_function)(void *object, void *dl_tensor);

/* Returns the object at `index` of `sequence`, which the caller does not own, or NULL. CPython's PyList_GetItem is one. */
typedef void *(*adamw_item_function)(void *sequence, ptrdiff_t index);

/* Returns the value of `descriptor` for `object`, which the caller owns, or NULL; `nothing` is NULL. The slot tp_descr_get of
 * a descriptor's type is one: it is the __get__(object) of that descriptor. */
typedef void *(*adamw_get_function)(void *descriptor, void *object, void *nothing);

/* Returns the answer of `object`; `nothing` is NULL. The function of a PyMethodDef without arguments is one. */
typedef void *(*adamw_test_function)(void *object, void *nothing);

/* Stores `object` at `index` of `sequence`, which takes ownership of it, even if the call fails. Returns 0 on success.
 * CPython's PyList_SetItem is one. */
typedef int (*adamw_set_item_function)(void *sequence, ptrdiff_t index, void *object);

/* The functions that adamw_describe_tensors() calls, and the memory that it writes. One struct serves any number of calls.
 * Start from ADAMW_DESCRIBE_OPTIONS_INIT. */
typedef struct adamw_describe_options {
  size_t size;                    /* sizeof(adamw_describe_options) */
  adamw_dlpack_function describe;
  adamw_item_function item;
  int64_t count;                  /* number of objects, in 0 ... INT64_MAX */
  void *addresses;                /* receives the address of element 0 of tensor i in the pointer at `addresses` + i * stride
                                     bytes */
  size_t stride;                  /* a multiple of 8: `addresses` may be a field of a table of adamw_tensor */
  adamw_tensor_form *forms;       /* `count` of them */
  size_t form_size;               /* sizeof(adamw_tensor_form) */
  void **objects;                 /* NULL, or receives `count` pointers that tell the objects apart: the pointers that
                                     `item` returned, or with `handle` the pointers that lie in these objects */
  adamw_get_function get;         /* NULL, or: describe get(descriptor, object, NULL) instead of the object, for example
                                     the gradient of a parameter */
  void *descriptor;
  adamw_set_item_function keep;   /* with `get`: the sequence `kept` owns the values that `get` returned, until the caller
                                     empties it */
  void *kept;
  adamw_test_function test;       /* NULL, or: refuse a tensor if test(tensor, NULL) is not `passes`. A torch tensor whose
                                     is_neg() is not False has other numbers than its memory */
  void *passes;
  size_t handle;                  /* 0, or the offset in bytes of a pointer in each tensor. It points to memory with a
                                     64-bit number at the offset `bits_at`. Refuse a tensor if this number has one of the
                                     bits `bits` */
  size_t bits_at;
  uint64_t bits;
} adamw_describe_options;

#define ADAMW_DESCRIBE_OPTIONS_INIT \
  { sizeof(adamw_describe_options), NULL, NULL, 0, NULL, 0, NULL, sizeof(adamw_tensor_form), NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, 0, 0, 0u }

/* The same as a function, for bindings that cannot use macros. size is sizeof(adamw_describe_options).
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library has another size; it has written nothing */
ADAMW_API adamw_status adamw_describe_options_init(adamw_describe_options *options, size_t size);

/* Describes each of the first `count` objects of `sequence`. It is for a caller that must inspect thousands of tensors before
 * each step: to do so one by one from Python takes longer than the step. It keeps nothing, synchronises nothing and takes no
 * lock. If the functions need the interpreter's lock, the caller must hold it.
 * Errors: the outputs may be partly written; a pending Python exception is left for the caller to handle.
 *   INVALID_ARGUMENT  options, or a needed member of it, is NULL, misaligned or out of range; an object is not a tensor,
 *                     has no memory (it is sparse, or wraps another tensor), or is refused
 *   VERSION           this library has another options.size or options.form_size */
ADAMW_API adamw_status adamw_describe_tensors(void *sequence, const adamw_describe_options *options);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* The layout that pyadamw relies on. */
#if defined(__cplusplus) && !defined(ADAMW_NO_ASSERTS)
static_assert(sizeof(adamw_tensor_form) == 32 && offsetof(adamw_tensor_form, contiguous) == 28, "adamw_tensor_form");
static_assert(sizeof(adamw_describe_options) == 144 && offsetof(adamw_describe_options, bits) == 136, "adamw_describe_options");
#endif

#endif /* ADAMW_PYTHON_H */
