//! Tests of completed.
