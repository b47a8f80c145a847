//! The demo as a user runs it: real processes, real sockets, short times.

use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs a short demo and gives its figures.
fn demo(name: &str, arguments: &[&str]) -> Value {
    let json = crate::common::path(&format!("{name}.json"));
    let html = crate::common::path(&format!("{name}.html"));
    let (json_text, html_text) = (json.to_str().unwrap(), html.to_str().unwrap());
    let mut all = vec!["demo", "--quick", "--duration", "500ms", "--json", json_text, "--html", html_text];
    all.extend(arguments);
    let start = Instant::now();
    crate::common::run(&all);
    assert!(start.elapsed() < Duration::from_secs(60), "took {:?}", start.elapsed());
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("</html>"));
    assert_eq!(page.matches("<svg").count(), 5);
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

/// Every message came back once and whole.
fn assert_clean(figures: &Value, names: &[&str], hold: u64) {
    let transports = figures["transports"].as_array().unwrap();
    assert_eq!(transports.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    let sent = transports[0]["sent"].as_u64().unwrap();
    assert!(sent > 10, "{sent} messages");
    for transport in transports {
        // The same arrivals for all.
        assert_eq!(transport["sent"], sent);
        assert_eq!(transport["completed"], sent);
        for fault in ["lost", "corrupt", "executed_twice", "unexpected", "unsent", "released_early"] {
            assert_eq!(transport[fault], 0, "{fault} of {}", transport["name"]);
        }
        assert_eq!(transport["held"], hold);
        assert_eq!(transport["held_completed"], hold);
        assert_eq!(transport["server"]["held_max"], hold);
        assert_eq!(transport["points"].as_array().unwrap().len(), 10);
    }
}

#[test]
fn tcp_loses_nothing_and_both_variants_get_the_same() {
    let figures = demo("tcp", &["--transports", "tcp1,tcp4", "--hold", "1200"]);
    assert_clean(&figures, &["tcp1", "tcp4"], 1_200);
    assert_eq!(figures["workload"], "w4");
    assert_eq!(figures["baseline"]["transport"], "tcp1");
}

#[test]
fn tcp_over_ipv6_with_short_messages() {
    let figures = demo("tcp6", &["--transports", "tcp4", "--ipv6", "--workload", "w3"]);
    assert_clean(&figures, &["tcp4"], 0);
    assert_eq!(figures["settings"]["ipv6"], true);
}

#[test]
fn homa_and_tcp_get_the_same_and_lose_nothing() {
    let figures = demo("all", &["--hold", "1200"]);
    assert_clean(&figures, &["homa", "tcp1", "tcp4"], 1_200);
    assert_eq!(figures["baseline"]["transport"], "homa");
    for transport in figures["transports"].as_array().unwrap() {
        for point in transport["points"].as_array().unwrap() {
            assert!(point["p50_slowdown"].as_f64().unwrap() <= point["p99_slowdown"].as_f64().unwrap());
        }
    }
}

#[test]
fn homa_repairs_losses() {
    let mut arguments =
        vec!["--transports", "homa,tcp1", "--drop", "1%", "--workload", "w3", "--hold", "100"];
    // Tests share the machine with others: at times this is an overload, and must end well too.
    arguments.extend(["--load", "60%"]);
    let figures = demo("drop", &arguments);
    assert_clean(&figures, &["homa", "tcp1"], 100);
    assert_eq!(figures["settings"]["homa_drop"], 0.01);
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["demo", "--load", "300%"][..], "between 0 and 100"),
        (&["demo", "--duration", "soon"], "is not a time"),
        (&["demo", "--transports", "avian"], "avian"),
    ] {
        let output = crate::common::peyk(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}
