//! Which virtual CPU runs next on a physical CPU: policy only.
