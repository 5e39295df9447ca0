/* SPDX-License-Identifier: GPL-2.0-only */
#include "btf.h"

/* Other flags. */
ID_SET8_START(of_pipes);
ID_FLAGS(func, pipe_peek, 1);
#ifdef NEW
ID_FLAGS(func, pipe_push, 0x42);
#else
ID_FLAGS(func, pipe_push, 2);
#endif
ID_SET8_END(of_pipes);

/* One entry more. */
ID_SET_START(hooks);
ID(func, hook_open);
#ifdef NEW
ID(func, hook_close);
#endif
ID_SET_END(hooks);

/* In another order, which the linker makes anew. */
ID_SET8_START(of_files);
#ifdef NEW
ID_FLAGS(func, file_put, 4);
ID_FLAGS(func, file_get, 2);
#else
ID_FLAGS(func, file_get, 2);
ID_FLAGS(func, file_put, 4);
#endif
ID_SET8_END(of_files);

/* A list, whose order is its meaning. */
ID_LIST(types);
#ifdef NEW
ID(struct, task_struct);
ID(struct, file);
#else
ID(struct, file);
ID(struct, task_struct);
#endif

/* One that is new, and one that is gone. */
#ifdef NEW
ID_SET_START(fresh);
ID(func, hook_open);
ID_SET_END(fresh);
#else
ID_SET_START(stale);
ID(func, hook_open);
ID_SET_END(stale);
#endif
extern struct btf_id_set8 of_pipes;
int check(long n) { return take(n, of_pipes.cnt) + 1; }
