//! Tests of priority.
