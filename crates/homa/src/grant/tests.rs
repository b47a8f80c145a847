//! Tests of grant.
