/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.macro	function name, bind=globl
	.p2align 4
	.type	__pfx_\name, @function
__pfx_\name:
771:	.fill	16, 1, 0x90
	.size	__pfx_\name, . - __pfx_\name
	.pushsection __patchable_function_entries, "awo", @progbits, .text
	.quad	771b
	.popsection
	.\bind	\name
	.type	\name, @function
\name:
	endbr64
772:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	772b
	.popsection
	.endm
	.macro	done name
773:	jmp	__x86_return_thunk
	.pushsection .return_sites, "a"
	.long	773b - .
	.popsection
	.size	\name, . - \name
	.endm

	function check
	push	%rbx
	mov	%rdi, %rbx
	mov	%rbx, %rsi
#ifdef NEW
	call	more
#endif
	call	take
	pop	%rbx
	done check

#ifdef NEW
	function more, local
	lea	2(%rdi), %rdi
	done more
#endif

	function same
	mov	%edi, %eax
	done same
