/* SPDX-License-Identifier: GPL-2.0-only */
/* The manifest travels in the module: not loaded (no "a" flag), for `lpbuild inspect` and for whoever asks later. */
	.section .lpbuild.manifest, "", @progbits
	.incbin "lp-manifest.toml"
	.section .note.GNU-stack, "", @progbits
