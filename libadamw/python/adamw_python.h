/* SPDX-License-Identifier: MIT
 *
 * adamw_python.h - what pyadamw alone calls of libadamw: looking at many tensors of a Python framework in one call.
 *
 * It is private. It is not installed, and not part of the ABI that adamw.h promises: its functions are exported in a
 * version node of their own, ADAMW_PYTHON_PRIVATE, and may change or disappear in any version. A caller must compare
 * adamw_python_version() with ADAMW_PYTHON_VERSION first, and must do without where the function is missing or the
 * number is another. It must not know Python: whoever calls hands it the functions that do.
 */
#ifndef ADAMW_PYTHON_H
#define ADAMW_PYTHON_H

#include "../../include/adamw.h"

/* Changes with every change of what this file declares. */
#define ADAMW_PYTHON_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* ADAMW_PYTHON_VERSION of the library that is loaded. */
ADAMW_API int32_t adamw_python_version(void);

/* What adamw_describe_tensors() says of one tensor besides its address. Tensors of equal form have equal bytes here. */
typedef struct adamw_tensor_form {
  int64_t numel;        /* number of elements */
  uint64_t shape;       /* a hash of the sizes, in order */
  int32_t device_type;  /* DLDeviceType: 1 is the CPU, 2 CUDA */
  int32_t device_id;
  uint8_t dtype_code;   /* DLDataTypeCode: 2 is float, 4 bfloat */
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int32_t contiguous;   /* 1 if the elements lie side by side in the order of the dimensions, else 0 */
} adamw_tensor_form;

/* Fills the DLTensor of dlpack.h, version 1, at `dl_tensor` with a view of `object`; 0 if it could. It is the
 * dltensor_from_py_object_no_sync of a DLPackExchangeAPI, which some versions of torch have in
 * Tensor.__dlpack_c_exchange_api__. */
typedef int (*adamw_dlpack_function)(void *object, void *dl_tensor);

/* The object at `index` of `sequence`, not owned, or NULL. CPython's PyList_GetItem is one. */
typedef void *(*adamw_item_function)(void *sequence, ptrdiff_t index);

/* What `object` has under `key`, owned by whoever calls it, or NULL. CPython's PyObject_GetAttr is one, and so is the
 * function of a PyMethodDef that takes no arguments, whose `key` is NULL. */
typedef void *(*adamw_get_function)(void *object, void *key);

/* Makes `object` number `index` of `sequence`, which owns it from now on, even if it fails; 0 if it could. CPython's
 * PyList_SetItem is one. */
typedef int (*adamw_set_item_function)(void *sequence, ptrdiff_t index, void *object);

/* What adamw_describe_tensors() calls, and where it writes: filled in once, for as many calls as there are. Start from
 * ADAMW_DESCRIBE_OPTIONS_INIT. */
typedef struct adamw_describe_options {
  size_t size;                    /* sizeof(adamw_describe_options) */
  adamw_dlpack_function describe;
  adamw_item_function item;
  int64_t count;                  /* number of objects, in 0 ... INT64_MAX */
  void *addresses;                /* the address of element 0 of tensor i goes to the pointer i * stride bytes beyond this */
  size_t stride;                  /* a multiple of 8: `addresses` may be a column of a table of adamw_tensor */
  adamw_tensor_form *forms;       /* `count` of them */
  size_t form_size;               /* sizeof(adamw_tensor_form) */
  void **objects;                 /* NULL, or where to write what tells the objects apart: `count` pointers, those that
                                     `item` returned, or with `handle` those that lie in these objects */
  adamw_get_function get;         /* NULL, or: described is get(object, key), as a parameter's gradient is */
  void *key;
  adamw_set_item_function keep;   /* with `get`: the sequence `kept` owns what `get` returned until the caller empties it */
  void *kept;
  adamw_get_function test;        /* NULL, or: a tensor is refused of which test(tensor, NULL) is not `passes`. A torch
                                     tensor whose is_neg() is not False holds other numbers than its memory */
  void *passes;
  size_t handle;                  /* 0, or: `handle` bytes beyond its beginning a tensor has a pointer. It is refused if the
                                     64-bit number `bits_at` bytes beyond what that points to has one of the bits `bits` */
  size_t bits_at;
  uint64_t bits;
} adamw_describe_options;

#define ADAMW_DESCRIBE_OPTIONS_INIT \
  { sizeof(adamw_describe_options), NULL, NULL, 0, NULL, 0, NULL, sizeof(adamw_tensor_form), NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, 0, 0, 0u }

/* The same as a function, for bindings that lose macros. size is sizeof(adamw_describe_options).
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           size is not this library's; nothing has been written then */
ADAMW_API adamw_status adamw_describe_options_init(adamw_describe_options *options, size_t size);

/* Looks at each of the first `count` objects of `sequence`, for a caller that must look at thousands of tensors before each
 * step: to ask them one by one from Python takes longer than the step. It keeps nothing, synchronises nothing and takes no
 * lock: if the functions need the interpreter's, the caller must hold it.
 * Errors: the outputs may be partly written; a pending Python exception is left for the caller to handle.
 *   INVALID_ARGUMENT  options, or a member of it that is needed, is NULL, misaligned or out of range; an object that is no
 *                     tensor, has no memory (a sparse one, or one that wraps another tensor) or is refused
 *   VERSION           options.size or options.form_size is not this library's */
ADAMW_API adamw_status adamw_describe_tensors(void *sequence, const adamw_describe_options *options);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* The layout that pyadamw relies on. */
#ifndef ADAMW_NO_ASSERTS
#if defined(__cplusplus) && __cplusplus >= 201103L
#define ADAMW_ASSERT_(condition, name) static_assert(condition, #name)
#else
#define ADAMW_ASSERT_(condition, name) typedef char name[(condition) ? 1 : -1]
#endif
ADAMW_ASSERT_(sizeof(adamw_tensor_form) == 32 && offsetof(adamw_tensor_form, contiguous) == 28, adamw_assert_form_size);
ADAMW_ASSERT_(sizeof(adamw_describe_options) == 144 && offsetof(adamw_describe_options, bits) == 136, adamw_assert_describe);
#undef ADAMW_ASSERT_
#endif

#endif /* ADAMW_PYTHON_H */
