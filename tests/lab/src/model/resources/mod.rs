//! GET.
