//! The body of the fuzz target `homa_endpoint` on a stable compiler, for about a second. The real
//! fuzzer is in `fuzz/`.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the time limit of the test is real time"
)]

use std::sync::Mutex;
use std::time::Duration;

#[path = "../../../fuzz/bodies/homa_endpoint.rs"]
mod homa_endpoint;
#[path = "../../../fuzz/bodies/smoke.rs"]
mod smoke;

use homa_endpoint::Tally;

#[test]
fn homa_endpoint_smoke() {
    let total = Mutex::new(Tally::default());
    smoke::smoke("homa_endpoint", Duration::from_secs(1), |bytes| {
        let tally = homa_endpoint::run(bytes);
        let mut total = total.lock().expect("no story failed");
        total.requests += tally.requests;
        total.responses += tally.responses;
        total.failures += tally.failures;
        total.cancellations += tally.cancellations;
        total.refusals += tally.refusals;
    });
    let total = total.into_inner().expect("no story failed");
    println!("{total:?}");
    let reached = [total.requests, total.responses, total.failures, total.cancellations, total.refusals];
    assert!(reached.iter().all(|count| *count > 0), "the stories do not reach everything: {total:?}");
}
