//! `peyk sim` as a user runs it: small networks, short runs, and jobs as machines far apart would run them.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// An empty directory of this name.
fn directory(name: &str) -> PathBuf {
    let path = crate::common::path(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A run of the promised shape, in which nothing went wrong.
fn assert_run(run: &Value, transport: &str, messages: u64) {
    assert_eq!((&run["workload"], &run["transport"]), (&"w3".into(), &transport.into()));
    assert_eq!((&run["load"], &run["hosts"], &run["seed"]), (&0.5.into(), &16.into(), &7.into()));
    assert_eq!(run["messages"].as_u64().unwrap() + run["incomplete"].as_u64().unwrap(), messages);
    assert_eq!(run["violations"], 0, "{}", run["violation_kinds"]);
    assert_eq!(run["interrupted"], false);
    let points = run["points"].as_array().unwrap();
    for percent in [10.0, 50.0, 90.0, 99.0] {
        let point = points.iter().find(|p| p["percent"] == percent).unwrap();
        let (p50, p99) = (&point["p50_slowdown"].as_f64().unwrap(), &point["p99_slowdown"].as_f64().unwrap());
        assert!(point["size"].as_u64().unwrap() > 0);
        assert!(*p50 >= 0.9 && p50 <= p99, "{point}");
    }
    assert!(
        run["tor_queue_bytes"]["mean"].as_f64().unwrap() <= run["tor_queue_bytes"]["max"].as_f64().unwrap()
    );
    assert!(!run["tor_queue_bytes"]["by_priority"].as_array().unwrap().is_empty());
    assert!((0.0..1.0).contains(&run["wasted_bandwidth"].as_f64().unwrap()));
    assert!(run["packet_hops_per_second"].as_f64().unwrap() > 0.0);
    assert!(run["peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
}

/// A small run; gives its figures without those that depend on the machine.
fn small(name: &str, arguments: &[&str]) -> Value {
    let json = crate::common::path(&format!("sim-{name}.json"));
    let mut all = vec!["sim", "--workload", "w3", "--load", "50%", "--hosts", "16", "--seed", "7"];
    all.extend(["--messages", "4000", "--json", json.to_str().unwrap()]);
    all.extend(arguments);
    crate::common::run(&all);
    read(&json)
}

#[test]
fn one_transport_gives_one_run_and_the_same_twice() {
    let timeless = |mut run: Value| {
        for field in ["wall_seconds", "packet_hops_per_second", "peak_memory_bytes"] {
            run.as_object_mut().unwrap().remove(field).unwrap();
        }
        run
    };
    let run = small("one", &[]);
    assert_run(&run, "homa", 4_000);
    assert_eq!(timeless(run), timeless(small("two", &[])));
}

#[test]
fn transports_stand_side_by_side() {
    let html = crate::common::path("sim-both.html");
    let figures = small("both", &["--transport", "homa,dctcp,srpt", "--html", html.to_str().unwrap()]);
    let runs = figures["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    assert_run(&runs[0], "homa", 4_000);
    assert_eq!((&runs[1]["transport"], &runs[2]["transport"]), (&"dctcp".into(), &"srpt".into()));
    let page = fs::read_to_string(html).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    for foreign in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}

#[test]
fn sizes_come_from_a_file_and_settings_from_flags() {
    let sizes = crate::common::path("sim-sizes.txt");
    fs::write(&sizes, "1200\n200 0.5\n2200 1.0\n").unwrap();
    let json = crate::common::path("sim-sizes.json");
    let (sizes, json_text) = (sizes.to_str().unwrap(), json.to_str().unwrap());
    let arguments =
        ["--sizes", sizes, "--hosts", "4", "--messages", "2000", "--overcommit", "2", "--shipped"];
    crate::common::run(&[&["sim", "--json", json_text][..], &arguments].concat());
    let run = read(&json);
    assert_eq!(run["workload"], "sim-sizes.txt");
    assert_eq!((&run["spec"]["settings"], &run["spec"]["overcommit"]), (&"shipped".into(), &2.into()));
    let sizes: Vec<u64> =
        run["curve"].as_array().unwrap().iter().map(|p| p["size"].as_u64().unwrap()).collect();
    assert!(sizes.contains(&200) && sizes.contains(&2_200) && sizes.iter().all(|s| [200, 2_200].contains(s)));
}

#[test]
fn nonsense_is_refused_with_a_reason() {
    for (arguments, code, reason) in [
        (&["--load", "80"][..], 2, "write 0.8 or 80%"),
        (&["--load", "0"], 1, "share of the network"),
        (&["--hosts", "20"], 1, "as 16 or 32"),
        (&["--transport", "avian"], 1, "avian"),
        (&["--transport", "homa,homa"], 1, "named twice"),
        (&["--overcommit", "9"], 1, "1 to 8"),
        (&["--sizes", "/nonexistent/sizes"], 1, "/nonexistent/sizes"),
        (&["--published", "--shipped"], 2, "cannot be used with"),
        (&["check", "--seeds", "9..1"], 2, "has no seeds"),
        (&["check", "--minutes", "0"], 2, "number of minutes"),
        (&["run", "/nonexistent/plan.toml"], 1, "/nonexistent/plan.toml"),
        (&["merge", "/nonexistent/results"], 1, "/nonexistent/results"),
    ] {
        let output = crate::common::peyk(&[&["sim"], arguments].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}

const PLAN: &str = r#"
    title = "Two loads and an incast"
    highest = "load"
    [[figure]]
    title = "Slowdown"
    curves = ["load"]
    x = "messages"
    y = "p99"
    [base]
    workload = "w3"
    hosts = 16
    messages = 3000
    [[experiment]]
    sweep = { load = [0.4, 0.6] }
    published = { p99 = { 50 = 2.0 }, p50_mean = 1.4 }
    [[experiment]]
    set = { kind = "incast", senders = 40, rounds = 3 }
"#;

#[test]
fn jobs_run_apart_make_the_report_of_the_plan() {
    let dir = directory("sim-plan");
    let of = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(of("small.toml"), PLAN).unwrap();
    crate::common::run(&[
        "sim",
        "run",
        &of("small.toml"),
        "--json",
        &of("whole.json"),
        "--html",
        &of("whole.html"),
    ]);

    let jobs = crate::common::run(&["sim", "jobs", &of("small.toml")]).stdout;
    assert_eq!(String::from_utf8_lossy(&jobs).lines().count(), 3);
    fs::write(of("jobs.jsonl"), jobs).unwrap();
    for index in ["2", "0"] {
        crate::common::run(&["sim", "job", &of("jobs.jsonl"), "--index", index, "--out", &of("results")]);
    }
    let output = crate::common::peyk(&["sim", "merge", &of("results")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a job is missing");
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 of 3 jobs are missing: 1"));
    crate::common::run(&["sim", "job", &of("jobs.jsonl"), "--index", "1", "--out", &of("results")]);
    crate::common::run(&["sim", "merge", &of("results"), "--json", &of("merged.json")]);

    let (whole, merged) = (read(&dir.join("whole.json")), read(&dir.join("merged.json")));
    assert_eq!((&whole["jobs"], &merged["missing"]), (&3.into(), &Value::Array(vec![])));
    for n in 0..3 {
        for field in ["label", "points", "tor_queue_bytes", "incast", "published"] {
            assert_eq!(whole["runs"][n][field], merged["runs"][n][field], "{field} of {n}");
        }
    }
    let compared = &merged["runs"][0]["published"];
    assert_eq!((&compared[0]["figure"], &compared[1]["figure"]), (&"p99_at_50".into(), &"p50_mean".into()));
    let ours = compared[0]["ours"].as_f64().unwrap();
    assert_eq!(compared[0]["ratio"].as_f64().unwrap(), ours / 2.0);
    assert!(merged["runs"][2]["incast"]["gbps"].as_f64().unwrap() > 5.0);
    assert_eq!(merged["highest"][0]["sustained"], 0.6);
    assert!(fs::read_to_string(dir.join("whole.html")).unwrap().contains("<svg"));
}

#[test]
fn a_job_that_is_not_there_is_refused() {
    let dir = directory("sim-no-job");
    let jobs = dir.join("jobs.jsonl");
    fs::write(&jobs, "{}\n").unwrap();
    let arguments = ["sim", "job", jobs.to_str().unwrap(), "--index", "0", "--out", dir.to_str().unwrap()];
    let output = crate::common::peyk(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1 is not a job"));
}

#[test]
fn the_plans_of_the_repository_are_valid() {
    let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plans");
    let mut count = 0;
    for entry in fs::read_dir(plans).unwrap() {
        let path = entry.unwrap().path();
        let jobs = crate::common::run(&["sim", "jobs", path.to_str().unwrap()]).stdout;
        assert!(!jobs.is_empty(), "{}", path.display());
        count += 1;
    }
    assert!(count >= 8, "{count} plans");
}

#[test]
fn check_runs_its_seeds() {
    let json = crate::common::path("sim-check.json");
    crate::common::run(&["sim", "check", "--seeds", "0..10", "--json", json.to_str().unwrap()]);
    let found = read(&json);
    assert_eq!((&found["seeds"], &found["failure"]), (&10.into(), &Value::Null));
    assert!(found["calls"].as_u64().unwrap() > 0 && found["packets"].as_u64().unwrap() > 100);
}

#[test]
fn an_interruption_leaves_what_there_is() {
    let json = crate::common::path("sim-interrupted.json");
    let _ = fs::remove_file(&json);
    let arguments = ["sim", "--workload", "w1", "--hosts", "16", "--messages", "100000000", "--json"];
    let mut child = crate::common::peyk(&[&arguments[..], &[json.to_str().unwrap()]].concat())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The first line of progress says that it is under way; then it needs to have measured something.
    let mut line = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not stop");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(130));
    let run = read(&json);
    assert_eq!(run["interrupted"], true);
    assert_eq!(run["violations"], 0);
}
