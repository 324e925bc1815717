"""What fuzzers have found, shrunk; each must now be taken, or refused in a sentence."""

FINDINGS: dict[str, list[tuple]] = {
    "files": [
        (
            "minari",
            [("json", "fuzz/two-v0/data/metadata.json", "put", ("total_episodes",), 7)],
        ),
        ("policy.o2o", [("weights", "array", "0", "rows", 3)]),
        ("policy.o2o", [("weights", "array", "0", "number", (1881, float("nan")))]),
        ("policy.o2o", [("swap", "observe.stablehlo", "start.stablehlo")]),
        ("policy.o2o", [("json", "about.json", "less", ("weights", "start"), 10)]),
        ("policy.o2o", [("json", "about.json", "less", ("num_obs",), 13)]),
        ("lengths.hdf5", [("odd", "episode_lengths", "null")]),
        ("lengths.hdf5", [("array", "terminals", "rows", 1)]),
        ("lengths.hdf5", [("odd", "actions", "null")]),
        ("lengths.hdf5", [("odd", "extras/return_to_go", "scalar")]),
        ("columns.hdf5", [("odd", "observations", "scalar")]),
        ("policy.o2o", [("json", "about.json", "put", ("obs",), 30)]),
        ("compact.npz", [("array", "valids", "name", "extras/return_to_go")]),
        ("written.hdf5", [("bytes", "written.hdf5", "zero", 6367, 1000)]),
        ("tasks.hdf5", [("odd", "observations", "scalar")]),
        (
            "lengths.hdf5",
            [
                ("bytes", "lengths.hdf5", "flip", 25, 1),
                ("bytes", "lengths.hdf5", "drop", 2542, 8),
            ],
        ),
        ("next.h5", [("array", "timeouts", "name", "extras")]),
        (
            "minari",
            [("json", "fuzz/two-v0/data/metadata.json", "put", ("total_steps",), 15)],
        ),
        (
            "minari",
            [("bytes", "fuzz/two-v0/data/main_data.hdf5", "flip", 12534, 128)],
        ),
    ],
    "configs": [
        ("sac.py:halfcheetah", [("value", "eval.episodes", 43)]),
        ("rlpd.py:hopper-random", [("value", "seeds", 43)]),
        ("off2on.py:hopper-random", [("probe",)]),
        ("off2on.py:hopper-random", [("value", "algorithm", 49)]),
        ("door", [("door", "algorithm", 18)]),
        ("door", [("door", "dataset", 21)]),
        ("file", [("file", 6, "n.n")]),
        ("file", [("file", 7, "x")]),
        ("file", [("file", 10, "x")]),
        ("file", [("file", 17, "x")]),
        ("off2on.py:hopper-random", [("override", "--config.replay.name=.,8]n\n):e")]),
        ("sweep", [("grid", "checkpoint.every", (3,)), ("grid", "dataset", (19,))]),
        ("sweep", [("grid", "env_keys", (49,))]),
    ],
    "checkpoints": [
        ("begun resume", [("folder", "metrics.jsonl")]),
        ("one play on", [("folder", "summary.json")]),
        ("begun restore", [("folder", "config.json")]),
        ("one play on", [("remove", "config.json")]),
        ("one policy", [("bytes", "config.json", "flip", 2315, 32)]),
        ("one report", [("json", "config.json", "put", ("algorithm",), 1)]),
        (
            "one report",
            [
                (
                    "json",
                    "summary.json",
                    "put",
                    ("readiness", "q_minus_return", "iqm"),
                    33,
                )
            ],
        ),
        ("one warm", [("json", "config.json", "put", ("population",), 3)]),
        ("begun resume", [("json", "config.json", "put", ("doors",), 10)]),
        ("one restore", [("bytes", "checkpoints/41/record/metadata", "flip", 1295, 2)]),
        (
            "one play on",
            [("json", "checkpoints/20/_CHECKPOINT_METADATA", "put", (), 13)],
        ),
        (
            "one policy",
            [("bytes", "checkpoints/41/arrays/manifest.ocdbt", "twice", 14, 1000)],
        ),
    ],
    "environments": [
        ("gymnasium", [("info", 46, 3)]),
        ("gymnasium", [("action space", 6, 0)]),
        ("gymnasium", [("raise", 12, 0)]),
        ("gymnasium", [("raise", 13, 0)]),
        ("gymnasium", [("info", 38, 1)]),
        ("gymnasium", [("habit", 9, 25)]),
        ("gymnasium", [("habit", 11, 30)]),
        ("pure", [("next_obs", 39)]),
        ("pure", [("spec", 11)]),
    ],
}
