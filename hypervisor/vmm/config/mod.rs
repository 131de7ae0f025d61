//! What VMs exist: the manifest, parsed once and validated into types.
