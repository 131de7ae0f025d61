//! What a guest finds in its memory at reset: ACPI tables, EFI tables, device trees.
