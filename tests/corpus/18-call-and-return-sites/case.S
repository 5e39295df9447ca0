/* SPDX-License-Identifier: GPL-2.0-only */
	.text
	.globl	check
	.type	check, @function
	.p2align 4
check:
	.cfi_startproc
0:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	0b
	.popsection
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
#ifdef NEW
	lea	3(%rdi), %rbx
#else
	lea	1(%rdi), %rbx
#endif
1:	call	take
	.pushsection .call_sites, "a"
	.long	1b - .
	.popsection
	mov	%ebx, %eax
	pop	%rbx
	pop	%rbp
2:	jmp	__x86_return_thunk
	.pushsection .return_sites, "a"
	.long	2b - .
	.popsection
	.cfi_endproc
	.size	check, . - check
	.globl	other
	.type	other, @function
	.p2align 4
other:
3:	call	__fentry__
	.pushsection __mcount_loc, "a"
	.quad	3b
	.popsection
	mov	%edi, %eax
4:	jmp	__x86_return_thunk
	.pushsection .return_sites, "a"
	.long	4b - .
	.popsection
	.size	other, . - other
