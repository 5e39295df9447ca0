/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For the source of a live patch: #include <lpbuild.h>. `lpbuild build` finds it by itself, `lpbuild header` prints it for
 * whoever compiles the objects. docs/authors.md says when to use what.
 *
 *   LPB_PRE_APPLY(f) and so on       functions that are called around applying and reverting
 *   LPB_GIVEN_BACK(x)                this address, which the kernel keeps, is taken back by them
 *   LPB_ORIGINAL(f)                  the function as it was before the patch, as lp_original_f
 *   LPB_SHADOW(x, type)              a field beside an object of the kernel
 *
 * Data that lives as long as the patch is a new static variable, nothing else is needed.
 */
#ifndef LPBUILD_H
#define LPBUILD_H

#include <linux/compiler.h>
#include <linux/gfp.h>
#include <linux/types.h>

/* For lpbuild, which refuses marks that it does not know; not loaded. */
#define LPB_MARK_(text)						\
	asm(".pushsection .lpbuild.marks, \"\", @progbits\n"	\
	    ".asciz \"" text "\"\n"				\
	    ".popsection")

/*
 * Callbacks (docs/livepatch.md says when each is called). Stand below the function, which may be static. With another
 * signature they do not compile.
 */
#define LPB_CALLBACK_(kind, result, f)				\
	extern result f(void) __attribute__((__used__));	\
	LPB_MARK_(kind " " #f)

#define LPB_PRE_APPLY(f) LPB_CALLBACK_("pre-apply", int, f)
#define LPB_POST_APPLY(f) LPB_CALLBACK_("post-apply", void, f)
#define LPB_PRE_REVERT(f) LPB_CALLBACK_("pre-revert", void, f)
#define LPB_POST_REVERT(f) LPB_CALLBACK_("post-revert", void, f)

/*
 * A function or variable of the patch whose address the kernel keeps until the pre-revert or post-revert callback has taken it
 * back (LP2021). With one such mark every address that the kernel keeps wants one.
 */
#define LPB_GIVEN_BACK(x) LPB_MARK_("given-back " #x)

/* `f` must be declared. lp_original_f is for calls of functions that the patch replaces. */
#define LPB_ORIGINAL(f) extern typeof(f) lp_original_##f

/*
 * Shadow variables: values of a type beside objects of the kernel, found by the object's address. NULL is an object too, that of the
 * patch.
 *
 *   LPB_SHADOW(hits, struct hits);
 *
 *   struct hits *lpb_get_hits(obj);                          or NULL
 *   struct hits *lpb_attach_hits(obj, gfp);                  a new one, zeroed; NULL: no memory, or it has one
 *   struct hits *lpb_get_or_attach_hits(obj, gfp);           NULL: no memory
 *   struct hits *lpb_get_or_attach_with_hits(obj, gfp, init, arg);
 *   bool lpb_detach_hits(obj);                               it had one
 *   bool lpb_detach_with_hits(obj, release);
 *   void lpb_detach_all_hits(release);
 *
 * LPB_SHADOW is for objects that are freed before the patch goes: the function that frees them must detach, or the next object
 * in the same place has the old one's value. It does not compile where nothing calls lpb_detach_NAME. LPB_SHADOW_KEPT is for objects
 * that stay, and for a second file that uses what the first one detaches. What is attached when the patch has been
 * taken out is freed then. A patch that takes the place of another (`replaces`) goes on with the values of the same name and size.
 *
 * All may be called in any context but an NMI, where only get may; attach with GFP_ATOMIC where one must not sleep. `init` is
 * called with a lock held and interrupts off, before anybody else can find the value; what is not 0 gives it up. `release`,
 * which may be NULL, is called in the context of the caller, when nobody can find the value any more. The memory is freed after a
 * grace period of RCU; until when a value may be used is for the object's own locks to say, as for one of its fields.
 */
struct lpb_shadow {
	void *values;
	unsigned int size;
	unsigned int layout;
	char name[48];
};

typedef int (*lpb_init_t)(const void *obj, void *value, void *arg);
typedef void (*lpb_release_t)(const void *obj, void *value);

/* In the runtime, which is part of the patch's module. */
void *lpb_shadow_get(const void *obj, struct lpb_shadow *shadow);
void *lpb_shadow_attach(const void *obj, struct lpb_shadow *shadow, gfp_t gfp, lpb_init_t init, void *arg, bool or_get);
bool lpb_shadow_detach(const void *obj, struct lpb_shadow *shadow, lpb_release_t release);
void lpb_shadow_detach_all(struct lpb_shadow *shadow, lpb_release_t release);

/* The barriers keep the caller on the stack: a task that sleeps in the runtime must be seen in the patch. */
#define LPB_SHADOW_(x, type)									\
	typedef type lpb_type_of_##x;								\
	_Static_assert(sizeof(lpb_type_of_##x) <= 65536, "a shadow variable of more than 64 KiB");	\
	_Static_assert(__alignof__(lpb_type_of_##x) <= 8, "a shadow variable that wants more than kmalloc aligns to");	\
	_Static_assert(sizeof(#x) <= 48, "the name of a shadow variable is too long");		\
	static struct lpb_shadow lpb_shadow_of_##x __maybe_unused = {				\
		.size = sizeof(lpb_type_of_##x), .layout = 1, .name = #x };			\
	static inline lpb_type_of_##x *lpb_get_##x(const void *obj)				\
	{											\
		void *value = lpb_shadow_get(obj, &lpb_shadow_of_##x);				\
		barrier();									\
		return value;									\
	}											\
	static inline lpb_type_of_##x *lpb_attach_##x(const void *obj, gfp_t gfp)		\
	{											\
		void *value = lpb_shadow_attach(obj, &lpb_shadow_of_##x, gfp, NULL, NULL, false);	\
		barrier();									\
		return value;									\
	}											\
	static inline lpb_type_of_##x *lpb_get_or_attach_with_##x(const void *obj, gfp_t gfp,	\
								  lpb_init_t init, void *arg)	\
	{											\
		void *value = lpb_shadow_attach(obj, &lpb_shadow_of_##x, gfp, init, arg, true);	\
		barrier();									\
		return value;									\
	}											\
	static inline lpb_type_of_##x *lpb_get_or_attach_##x(const void *obj, gfp_t gfp)	\
	{											\
		return lpb_get_or_attach_with_##x(obj, gfp, NULL, NULL);			\
	}											\
	static inline bool lpb_detach_with_##x(const void *obj, lpb_release_t release)		\
	{											\
		bool had = lpb_shadow_detach(obj, &lpb_shadow_of_##x, release);			\
		barrier();									\
		return had;									\
	}											\
	static inline void lpb_detach_all_##x(lpb_release_t release)				\
	{											\
		lpb_shadow_detach_all(&lpb_shadow_of_##x, release);				\
		barrier();									\
	}

#define LPB_SHADOW_KEPT(x, type)								\
	LPB_SHADOW_(x, type)									\
	static inline bool lpb_detach_##x(const void *obj)					\
	{											\
		return lpb_detach_with_##x(obj, NULL);						\
	}											\
	_Static_assert(1, "")

#define LPB_SHADOW(x, type)									\
	LPB_SHADOW_(x, type)									\
	_Pragma("GCC diagnostic push")								\
	_Pragma("GCC diagnostic error \"-Wunused-function\"")					\
	static bool lpb_detach_##x(const void *obj)						\
	{											\
		return lpb_detach_with_##x(obj, NULL);						\
	}											\
	_Pragma("GCC diagnostic pop")								\
	_Static_assert(1, "")

#endif
