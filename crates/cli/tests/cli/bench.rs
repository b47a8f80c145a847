//! The benchmark as a user runs it.

use serde_json::Value;

#[test]
fn rpc_gives_a_row_for_every_load() {
    let json = crate::common::path("rpc.json");
    let arguments = [
        "bench",
        "rpc",
        "--transports",
        "homa,homa-sleep,udp,tcp",
        "--sizes",
        "100,100000",
        "--rounds",
        "1",
        "--time",
        "60ms",
    ];
    let mut all = arguments.to_vec();
    all.extend(["--json", json.to_str().unwrap()]);
    let output = crate::common::run(&all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("100 B, 64 outstanding, spin"), "{text}");
    let figures: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    // Homa and TCP: two sizes, two depths, two ways to wait; bare UDP: one size only; Homa that sleeps at
    // once: one way to wait.
    assert_eq!(rows.len(), 8 + 8 + 4 + 4);
    for row in rows {
        assert!(["homa", "homa_sleep", "udp_floor", "tcp"].contains(&row["transport"].as_str().unwrap()));
        assert!(["block", "spin"].contains(&row["waiting"].as_str().unwrap()));
        for field in ["p50_us", "p99_us", "rpcs_per_second", "goodput_gbps", "cpu_seconds_per_million_rpcs"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field} in {row}");
        }
    }
}

#[test]
fn shards_gives_every_line_beside_the_distance_of_the_cpus() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        println!("SKIPPED: a second CPU is needed");
        return;
    }
    let json = crate::common::path("shards.json");
    let to = json.to_str().unwrap();
    crate::common::run(&["bench", "shards", "--rounds", "1", "--time", "20ms", "--json", to]);
    let figures: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let (rows, crossings) = (figures["rows"].as_array().unwrap(), figures["hand_over"].as_array().unwrap());
    assert_eq!((rows.len(), crossings.len()), (5, 2));
    for row in rows {
        for field in ["one", "two", "ratio", "line_ns"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{field} in {row}");
        }
    }
    let streams = figures["streams"].as_array().unwrap();
    assert_eq!((streams.len(), streams[0]["ratio"].as_f64()), (4, Some(1.0)));
    for stream in streams {
        assert!(stream["ns"].as_f64().unwrap() > 0.0 && stream["line_ns"].as_f64().unwrap() > 0.0);
    }
    for crossing in crossings {
        assert!(crossing["ns"].as_f64().unwrap() > 0.0 && crossing["line_ns"].as_f64().unwrap() > 0.0);
    }
}
