/* SPDX-License-Identifier: GPL-2.0-only */
	.macro function name, target
	.globl	\name
	.type	\name, @function
	.p2align 4
\name:
	push	%rbx
	mov	%rdi, %rbx
	call	\target
	mov	%eax, %ebx
	pop	%rbx
	ret
	.size	\name, . - \name
	.endm
	.text
	function same, take
#ifdef IMAGE
	function check, give
#elif defined(NEW)
	.globl	check
	.type	check, @function
check:
	push	%rbx
	inc	%rdi
	call	take
	pop	%rbx
	ret
	.size	check, . - check
#else
	function check, take
#endif
