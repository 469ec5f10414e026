//! Batch packet I/O on Linux.
