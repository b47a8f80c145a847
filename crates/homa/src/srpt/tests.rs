//! Tests of srpt.
