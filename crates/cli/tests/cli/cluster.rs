//! The cluster benchmark: nodes that join over the loopback interface, and, where network namespaces may be made, a
//! testbed with its own check.

use std::{
    net::TcpListener,
    process::{Child, Stdio},
};

use serde_json::Value;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three nodes that join, and what they measured.
fn joined(name: &str, arguments: &[&str]) -> Value {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let nodes: Vec<Running> = (0..3)
        .map(|_| {
            let mut command = crate::common::peyk(&["cluster-node", "--join", &address]);
            Running(command.stdin(Stdio::null()).spawn().unwrap())
        })
        .collect();
    let json = crate::common::path(&format!("{name}.json"));
    let html = crate::common::path(&format!("{name}.html"));
    let mut all = vec!["cluster", "--listen", &address, "--hosts", "3", "--rate", "1gbit", "--load", "5%"];
    all.extend(["--duration", "1s", "--quick"]);
    all.extend(["--json", json.to_str().unwrap(), "--html", html.to_str().unwrap()]);
    all.extend(arguments);
    crate::common::run(&all);
    drop(nodes);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("</html>"));
    assert_eq!(page.matches("<svg").count(), 4);
    serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap()
}

fn assert_clean(figures: &Value, transports: &[&str]) {
    assert_eq!(figures["hosts"], 3);
    assert_eq!(figures["rate_mbit"], 1000.0);
    let runs = figures["runs"].as_array().unwrap();
    assert_eq!(runs.iter().map(|r| r["transport"].as_str().unwrap()).collect::<Vec<_>>(), transports);
    for run in runs {
        for fault in ["lost", "corrupt", "executed_twice", "unsent"] {
            assert_eq!(run[fault], 0, "{fault} of {}", run["transport"]);
        }
        // The same messages for all.
        assert_eq!(run["sent"], runs[0]["sent"]);
        assert!(run["sent"].as_u64().unwrap() > 20, "{}", run["sent"]);
        let percents: Vec<f64> =
            run["points"].as_array().unwrap().iter().map(|p| p["percent"].as_f64().unwrap()).collect();
        assert_eq!(percents, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0, 100.0]);
        assert!(run["goodput_mbit_per_host"].is_number() && run["cpu_percent"].is_number());
        assert!(run["shortest_half"]["p50_us"].as_f64() <= run["shortest_half"]["p99_us"].as_f64());
    }
}

#[test]
fn nodes_that_join_carry_every_transport() {
    let transports = ["homa", "tcp1", "tcp4", "tonic", "quinn"];
    let figures = joined("joined", &["--transport", &transports.join(","), "--workload", "w3"]);
    assert_clean(&figures, &transports);
    assert_eq!((figures["workload"].as_str(), figures["reference"].as_str()), (Some("w3"), Some("homa")));
}

#[test]
fn homa_with_fewer_levels_is_a_run_of_its_own() {
    let figures = joined("levels", &["--transport", "homa", "--workload", "w3", "--levels", "1,8"]);
    assert_clean(&figures, &["homa", "homa"]);
    assert_eq!(figures["runs"][0]["variant"], "1 level");
}

#[test]
fn testbed_is_made_shown_and_removed() {
    let name = format!("test{}", std::process::id());
    let create =
        crate::common::peyk(&["testbed", "create", "--name", &name, "--hosts", "2"]).output().unwrap();
    if !create.status.success() {
        let reason = String::from_utf8_lossy(&create.stderr).into_owned();
        // Anything else than the lack of rights or programs is a fault of ours.
        let is_allowed = ["needs root", "there is no program", "not permitted", "not supported"]
            .iter()
            .any(|r| reason.contains(r));
        assert!(is_allowed, "{reason}");
        println!("SKIPPED: no testbed can be made here: {reason}");
        return;
    }
    let again = crate::common::peyk(&["testbed", "create", "--name", &name]).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    let shown = crate::common::run(&["testbed", "show", "--name", &name, "--json"]);
    let ports: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(ports.as_array().unwrap().len(), 4);
    assert_eq!(ports[0]["queues"].as_array().unwrap().len(), 8);
    crate::common::run(&["testbed", "destroy", "--name", &name]);
    let gone = crate::common::peyk(&["testbed", "show", "--name", &name]).output().unwrap();
    assert!(!gone.status.success());
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["cluster", "--rate", "80"][..], "is not a rate"),
        (&["cluster", "--load", "8000%"], "between 0 and 100"),
        (&["cluster", "--levels", "9"], "9"),
        (&["testbed", "create", "--rate", "fast"], "is not a rate"),
    ] {
        let output = crate::common::peyk(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}
