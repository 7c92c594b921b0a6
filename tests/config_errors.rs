//! Wrong configurations, each with the exact text of its error.

use tower_offload::Config;

const CASES: &[(&str, &str, &str)] = &[
    (
        "unknown pool in scale_by",
        "performance:\n  scale_by: [inference, inferenc]\n",
        "<yaml>:2:25: performance.scale_by[1]: there is no pool `inferenc`; the pools are `io`, `cpu`, `inference`, `embedding` and `db`",
    ),
    (
        "pool twice in scale_by",
        "performance:\n  scale_by: [io, cpu, io]\n",
        "<yaml>:2:23: performance.scale_by[2]: `io` is given twice; name it once",
    ),
    (
        "no pool in scale_by",
        "performance:\n  scale_by: []\n",
        "<yaml>:2:13: performance.scale_by: no pool is given; leave the key out if all pools count",
    ),
    (
        "number in scale_by",
        "performance:\n  scale_by: [7]\n",
        "<yaml>:2:14: performance.scale_by[0]: `7` is not the name of a pool; give one such as `inference`",
    ),
    (
        "mapping as scale_by",
        "performance:\n  scale_by: {io: 1}\n",
        "<yaml>:2:13: performance.scale_by: a mapping is not a list of pools; give one such as `[inference]`",
    ),
    (
        "pool left out that scale_by names",
        "performance:\n  scale_by: db\n  thread_pools: {db: none}\n",
        "<yaml>:2:13: performance.scale_by[0]: there is no pool `db`; the pools are `io`, `cpu`, `inference` and `embedding`",
    ),
    (
        "target of more than all",
        "performance:\n  scale_target: 70\n",
        "<yaml>:2:17: performance.scale_target: 70 is more than the pools can do; give a load from 0.05 to 1, such as `0.7`",
    ),
    (
        "target of nothing",
        "performance:\n  scale_target: 0\n",
        "<yaml>:2:17: performance.scale_target: 0 is too little to aim at; give a load from 0.05 to 1, such as `0.7`",
    ),
    (
        "negative target",
        "performance:\n  scale_target: -0.5\n",
        "<yaml>:2:17: performance.scale_target: -0.5 is negative; give a load from 0.05 to 1, such as `0.7`",
    ),
    (
        "target that is no number",
        "performance:\n  scale_target: .nan\n",
        "<yaml>:2:17: performance.scale_target: NaN is no number; give a load from 0.05 to 1, such as `0.7`",
    ),
    (
        "target as text",
        "performance:\n  scale_target: high\n",
        "<yaml>:2:17: performance.scale_target: the text \"high\" is not a load; give a load from 0.05 to 1, such as `0.7`",
    ),
    (
        "unknown section",
        "perfomance:\n  workers: 4\n",
        "<yaml>:1:1: perfomance: this key is unknown; did you mean `performance`?",
    ),
    (
        "unknown section, nothing near",
        "# c\nlogging: {}\n",
        "<yaml>:2:1: logging: this key is unknown; the keys here are `general`, `performance`, `server` and `app`",
    ),
    (
        "unknown general key",
        "general:\n  # why\n  verbos: true\n",
        "<yaml>:3:3: general.verbos: this key is unknown; did you mean `verbose`?",
    ),
    (
        "unknown pool key",
        "performance:\n  thread_pools:\n    cpu: {workers: 4, que_capacity: 3}\n",
        "<yaml>:3:23: performance.thread_pools.cpu.que_capacity: this key is unknown; did you mean `queue_capacity`?",
    ),
    (
        "flag as text",
        "general: {verbose: \"yes\"}\n",
        "<yaml>:1:20: general.verbose: the text \"yes\" is not true or false; give `true` or `false`",
    ),
    (
        "flag as yes",
        "general:\n  verbose: yes\n",
        "<yaml>:2:12: general.verbose: the text \"yes\" is not true or false; give `true` or `false`",
    ),
    (
        "section as list",
        "general:\n  - verbose\n",
        "<yaml>:2:3: general: a list is not a mapping; write `key: value` lines",
    ),
    (
        "section as text",
        "performance: fast\n",
        "<yaml>:1:14: performance: the text \"fast\" is not a mapping; write `key: value` lines",
    ),
    ("root as list", "- general\n", "<yaml>:1:1: a list is not a mapping; write `key: value` lines"),
    ("root as text", "hello\n", "<yaml>:1:1: the text \"hello\" is not a mapping; write `key: value` lines"),
    (
        "zero workers",
        "performance:\n  thread_pools:\n    io_workers: 50\n    cpu_workers: 0 # none\n",
        "<yaml>:4:18: performance.thread_pools.cpu_workers: 0 workers could never run a task; give a number from 1 to 4096, or `auto`",
    ),
    (
        "negative workers",
        "performance:\n  thread_pools:\n    cpu_workers: -3\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: -3 is negative; give a number from 1 to 4096, or `auto`",
    ),
    (
        "absurd workers",
        "performance:\n  thread_pools:\n    cpu_workers: 99999999999999999999999\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: 99999999999999999999999 is more than 4096; give a number from 1 to 4096, or `auto`",
    ),
    (
        "absurder workers",
        "performance:\n  thread_pools:\n    cpu_workers: 999999999999999999999999999999999999999999999\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: `1e45` is not a whole number; give a number from 1 to 4096, or `auto`",
    ),
    (
        "float workers",
        "performance:\n  thread_pools:\n    cpu_workers: 2.5\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: `2.5` is not a whole number; give a number from 1 to 4096, or `auto`",
    ),
    (
        "NaN workers",
        "performance:\n  thread_pools:\n    cpu_workers: .nan\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: `NaN` is not a whole number; give a number from 1 to 4096, or `auto`",
    ),
    (
        "infinite workers",
        "performance:\n  thread_pools:\n    cpu_workers: .inf\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: `inf` is not a whole number; give a number from 1 to 4096, or `auto`",
    ),
    (
        "quoted workers",
        "performance:\n  thread_pools:\n    cpu_workers: \"30\"\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: the text \"30\" is no number for YAML; write 30",
    ),
    (
        "null workers",
        "performance:\n  thread_pools:\n    cpu_workers:\n    io_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.cpu_workers: nothing is given; give a number from 1 to 4096, or `auto`",
    ),
    (
        "short form with mapping",
        "performance:\n  thread_pools:\n    cpu_workers: {workers: 3}\n",
        "<yaml>:3:18: performance.thread_pools.cpu_workers: this key takes a number alone; for more settings write `cpu: {workers: ...}`",
    ),
    (
        "long form with number",
        "performance:\n  thread_pools:\n    cpu: 3\n",
        "<yaml>:3:10: performance.thread_pools.cpu: `3` is not the settings of a pool; write `cpu_workers: 4`, or `cpu: {workers: 4}`",
    ),
    (
        "long form empty",
        "performance:\n  thread_pools:\n    cpu:\n",
        "<yaml>:3:5: performance.thread_pools.cpu: nothing is given; write `cpu_workers: 4`, or `cpu: {workers: 4}`",
    ),
    (
        "key of a built-in pool in a short form",
        "performance:\n  thread_pools:\n    cpu_queue_capacity: 10\n",
        "<yaml>:3:25: performance.thread_pools.cpu_queue_capacity: `queue_capacity` of a pool belongs in its long form; write `cpu: {queue_capacity: ...}`",
    ),
    (
        "key of one word of a built-in pool in a short form",
        "performance:\n  thread_pools:\n    io-nice: 5\n",
        "<yaml>:3:14: performance.thread_pools.io-nice: `nice` of a pool belongs in its long form; write `io: {nice: ...}`",
    ),
    (
        "key of another pool in a short form",
        "performance:\n  thread_pools:\n    thumbnails_queue_timeout: 5s\n",
        "<yaml>:3:31: performance.thread_pools.thumbnails_queue_timeout: `queue_timeout` of a pool belongs in its long form; write `thumbnails: {queue_timeout: ...}`",
    ),
    (
        "name of a pool that ends like a key",
        "performance:\n  thread_pools:\n    fast_queue: 4\n",
        "<yaml>:3:17: performance.thread_pools.fast_queue: `4` is not the settings of a pool; write `fast_queue_workers: 4`, or `fast_queue: {workers: 4}`",
    ),
    (
        "short form misspelt",
        "performance:\n  thread_pools:\n    cpu_worker: 3\n",
        "<yaml>:3:17: performance.thread_pools.cpu_worker: this key is unknown; did you mean `cpu_workers`?",
    ),
    (
        "both forms",
        "performance:\n  thread_pools:\n    cpu_workers: 3\n    cpu:\n      nice: 5\n",
        "<yaml>:4:5: performance.thread_pools.cpu: pool `cpu` is also given as `cpu_workers`; keep one of the two (the other is on line 3)",
    ),
    (
        "doubled key",
        "performance:\n  thread_pools:\n    cpu_workers: 3\n    io_workers: 4\n    cpu_workers: 3\n",
        "<yaml>:5:5: performance.thread_pools.cpu_workers: the same key is given twice; keep one of the two (the other is on line 3)",
    ),
    (
        "doubled section",
        "general: {verbose: true}\nserver: {port: 1}\n\"general\": {}\n",
        "<yaml>:3:1: general: the same key is given twice; keep one of the two (the other is on line 1)",
    ),
    (
        "doubled in app",
        "app:\n  files:\n    - {a: 1, b: 2, a: 3}\n",
        "<yaml>:3:20: app.files[0].a: the same key is given twice; keep one of the two (the other is on line 3)",
    ),
    (
        "mapping as a key in app",
        "app:\n  files: [{{a: 1}: b}]\n",
        "<yaml>:2:12: app.files[0]: a mapping is not a key; a key is a word, a number, or a list of them",
    ),
    (
        "tag without a word in app",
        "app:\n  kind: !\n",
        "<yaml>:2:9: app.kind: `!` is no tag; a tag is `!` and a word, such as `!Name`",
    ),
    (
        "tag of odd letters in app",
        "app: {kinds: [!One 1, !a.b 2]}\n",
        "<yaml>:1:23: app.kinds[1]: `!a.b` is no tag; a tag is `!` and a word, such as `!Name`",
    ),
    (
        "tag in a key in app",
        "app:\n  files: {deep: {? [!t a] : b}}\n",
        "<yaml>:2:20: app.files.deep: a list is not a key; a key is a word, a number, or a list of them",
    ),
    (
        "own pool without workers",
        "performance:\n  thread_pools:\n    thumbs: {nice: 3}\n",
        "<yaml>:3:5: performance.thread_pools.thumbs: a pool that is not built in needs `workers`; give a number from 1 to 4096, or `auto`",
    ),
    (
        "bad pool name",
        "performance:\n  thread_pools:\n    Thumbs_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.Thumbs_workers: \"Thumbs\" is no name for a pool; use a lower-case letter, then lower-case letters, digits, `_` and `-`",
    ),
    (
        "long pool name",
        "performance:\n  thread_pools:\n    a234567890123456789012345678901234567890: {workers: 1}\n",
        "<yaml>:3:5: performance.thread_pools.a234567890123456789012345678901234567890: the pool's name is longer than 32 characters; use a lower-case letter, then lower-case letters, digits, `_` and `-`",
    ),
    (
        "empty pool name",
        "performance:\n  thread_pools:\n    _workers: 3\n",
        "<yaml>:3:5: performance.thread_pools._workers: a pool must have a name; use a lower-case letter, then lower-case letters, digits, `_` and `-`",
    ),
    (
        "zero concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: 0}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: a limit of 0 would admit no task; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "absurd queue",
        "performance:\n  thread_pools:\n    cpu: {queue_capacity: 1000001}\n",
        "<yaml>:3:27: performance.thread_pools.cpu.queue_capacity: 1000001 is more than 1000000; give a number from 0 to 1000000",
    ),
    (
        "negative queue",
        "performance:\n  thread_pools:\n    cpu: {queue_capacity: -1}\n",
        "<yaml>:3:27: performance.thread_pools.cpu.queue_capacity: -1 is negative; give a number from 0 to 1000000",
    ),
    (
        "no cores",
        "performance:\n  cores: 0\n",
        "<yaml>:2:10: performance.cores: 0 cores could never run a task; give a number from 1 to 4096, or `auto`",
    ),
    (
        "absurd cores",
        "performance:\n  cores: 5000\n",
        "<yaml>:2:10: performance.cores: 5000 is more than 4096; give a number from 1 to 4096, or `auto`",
    ),
    (
        "misspelt cores",
        "performance:\n  cores: Auto\n",
        "<yaml>:2:10: performance.cores: the text \"Auto\" is unknown here; did you mean `auto`?",
    ),
    (
        "cores of a pool",
        "performance:\n  thread_pools:\n    cpu: {cores: 2}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.cores: this key belongs under `performance`",
    ),
    (
        "no share",
        "performance:\n  thread_pools:\n    cpu: {share: 0}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.share: a pool with a share of 0 would starve; give a number from 1 to 1000",
    ),
    (
        "large share",
        "performance:\n  thread_pools:\n    cpu: {share: 1001}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.share: 1001 is more than 1000; give a number from 1 to 1000",
    ),
    (
        "half a share",
        "performance:\n  thread_pools:\n    cpu: {share: 0.5}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.share: `0.5` is not a whole number; give a number from 1 to 1000",
    ),
    (
        "small stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 16KiB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: 16KiB is less than 64KiB; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack without a unit",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 16\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: 16B is less than 64KiB; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "large stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 2GiB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: 2GiB is more than 1GiB; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "absurd stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 99999999999999999999GiB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `99999999999999999999GiB` is more than 1GiB; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "absurd stack in bytes",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 99999999999999999999\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: 99999999999999999999 is more than 1GiB; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "negative stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: -1MiB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `-1MiB` is negative; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "negative stack in bytes",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: -1\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: -1 is negative; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack in decimal units",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 16MB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `MB` is no unit of size (there are TiB, GiB, MiB, KiB and B); give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack with a fraction",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 1.5MiB\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `1.5MiB` is no whole number with a unit; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "quoted stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: '1048576'\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `1048576` is text without a unit; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack as a word",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: large\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `large` is no size; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack as a float",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size: 1.5\n",
        "<yaml>:4:19: performance.thread_pools.cpu.stack_size: `1.5` is not a size; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "no stack",
        "performance:\n  thread_pools:\n    cpu:\n      stack_size:\n",
        "<yaml>:4:7: performance.thread_pools.cpu.stack_size: nothing is given; give a size from 64KiB to 1GiB, such as `16MiB`",
    ),
    (
        "stack of connections",
        "performance: {stack_size: 1MiB}\n",
        "<yaml>:1:15: performance.stack_size: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "nice too high",
        "performance:\n  thread_pools:\n    cpu:\n      nice: 20\n",
        "<yaml>:4:13: performance.thread_pools.cpu.nice: 20 is more than 19; give a number from -20 to 19",
    ),
    (
        "nice too low",
        "performance:\n  thread_pools:\n    cpu:\n      nice: -21\n",
        "<yaml>:4:13: performance.thread_pools.cpu.nice: -21 is less than -20; give a number from -20 to 19",
    ),
    (
        "negative concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: -1}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: -1 is negative; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "absurd concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: 1000001}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: 1000001 is more than 1000000; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "NaN concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: .nan}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: `NaN` is not a whole number; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "quoted concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: '8'}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: the text \"8\" is no number for YAML; write 8",
    ),
    (
        "misspelt concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: adaptiv}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: the text \"adaptiv\" is unknown here; did you mean `adaptive`?",
    ),
    (
        "unknowable concurrency",
        "performance:\n  thread_pools:\n    cpu: {concurrency: many}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: the text \"many\" is not a whole number; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "concurrency as list",
        "performance:\n  thread_pools:\n    cpu: {concurrency: [2, 64]}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: a list is not a whole number; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "no concurrency",
        "performance:\n  thread_pools:\n    cpu:\n      concurrency:\n      nice: 1\n",
        "<yaml>:4:7: performance.thread_pools.cpu.concurrency: nothing is given; give a number from 1 to 1000000, `adaptive`, or bounds such as `{min: 2, max: 64}`",
    ),
    (
        "limits the wrong way round",
        "performance:\n  thread_pools:\n    cpu:\n      concurrency:\n        min: 64\n        max: 2\n",
        "<yaml>:5:9: performance.thread_pools.cpu.concurrency: `min` 64 is more than `max` 2; give both, the smaller one as `min`",
    ),
    (
        "least limit above the workers",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {min: 40}, workers: 4}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.concurrency: `min` 40 is more than `max` 4; give both, the smaller one as `min`",
    ),
    (
        "zero bound, whose order says nothing",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {min: 99, max: 0}}\n",
        "<yaml>:3:39: performance.thread_pools.cpu.concurrency.max: a limit of 0 would admit no task; give a number from 1 to 1000000",
    ),
    (
        "zero least limit",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {min: 0, max: 4}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.concurrency.min: a limit of 0 would admit no task; give a number from 1 to 1000000",
    ),
    (
        "negative bound",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {min: -2}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.concurrency.min: -2 is negative; give a number from 1 to 1000000",
    ),
    (
        "bound as word",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {max: workers}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.concurrency.max: the text \"workers\" is not a whole number; give a number from 1 to 1000000",
    ),
    (
        "unknown bound",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {mni: 2}}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.concurrency.mni: this key is unknown; did you mean `min`?",
    ),
    (
        "unknowable bound",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {start: 2}}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.concurrency.start: this key is unknown; the keys here are `min` and `max`",
    ),
    (
        "doubled bound",
        "performance:\n  thread_pools:\n    cpu: {concurrency: {max: 2, max: 3}}\n",
        "<yaml>:3:33: performance.thread_pools.cpu.concurrency.max: the same key is given twice; keep one of the two (the other is on line 3)",
    ),
    (
        "misspelt queue",
        "performance:\n  thread_pools:\n    cpu: {queue: fifi}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.queue: the text \"fifi\" is unknown here; did you mean `fifo`?",
    ),
    (
        "unknowable queue",
        "performance:\n  thread_pools:\n    cpu: {queue: lottery}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.queue: the text \"lottery\" is unknown here; give one of `fifo` and `adaptive`",
    ),
    (
        "queue as number",
        "performance:\n  thread_pools:\n    cpu: {queue: 100}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.queue: `100` is not a word; give one of `fifo` and `adaptive`",
    ),
    (
        "no queue",
        "performance:\n  thread_pools:\n    cpu:\n      queue:\n",
        "<yaml>:4:7: performance.thread_pools.cpu.queue: nothing is given; give one of `fifo` and `adaptive`",
    ),
    (
        "misspelt queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_taget: 20ms}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.queue_taget: this key is unknown; did you mean `queue_target`?",
    ),
    (
        "zero queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: 0}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: 0 is no time at all; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "negative queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: -20ms}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: `-20ms` is negative; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "NaN queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: .nan}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: `NaN` is not a time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "queue target without unit",
        "performance:\n  thread_pools:\n    cpu: {queue_target: '20'}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: `20` is text without a unit; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "short queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {min: 10us}}\n",
        "<yaml>:3:31: performance.thread_pools.cpu.queue_target.min: 10us is shorter than 1ms; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "absurd queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {max: 25h}}\n",
        "<yaml>:3:31: performance.thread_pools.cpu.queue_target.max: 90000s is longer than 24h; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "queue target with one bound above the other's default",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {min: 6}}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: `min` 6s is more than `max` 5s; give both, the smaller one as `min`",
    ),
    (
        "queue targets the wrong way round",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {min: 1s, max: 20ms}}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: `min` 1s is more than `max` 20ms; give both, the smaller one as `min`",
    ),
    (
        "queue target without a bound",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {min: }}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.queue_target.min: nothing is given; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "unknown bound of a queue target",
        "performance:\n  thread_pools:\n    cpu: {queue_target: {mx: 1s}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.queue_target.mx: this key is unknown; did you mean `max`?",
    ),
    (
        "queue target as list",
        "performance:\n  thread_pools:\n    cpu: {queue_target: [5ms, 5s]}\n",
        "<yaml>:3:25: performance.thread_pools.cpu.queue_target: a list is not a time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "misspelt place of a body",
        "performance:\n  thread_pools:\n    cpu: {body: {run: pol}}\n",
        "<yaml>:3:23: performance.thread_pools.cpu.body.run: the text \"pol\" is unknown here; did you mean `pool`?",
    ),
    (
        "unknowable place of a body",
        "performance:\n  thread_pools:\n    cpu: {body: {run: runtime}}\n",
        "<yaml>:3:23: performance.thread_pools.cpu.body.run: the text \"runtime\" is unknown here; give one of `connection` and `pool`",
    ),
    (
        "place of a body as flag",
        "performance:\n  thread_pools:\n    cpu: {body: {run: true}}\n",
        "<yaml>:3:23: performance.thread_pools.cpu.body.run: `true` is not a word; give one of `connection` and `pool`",
    ),
    (
        "hold as a time",
        "performance:\n  thread_pools:\n    cpu: {body: {hold: 30s}}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.body.hold: the text \"30s\" is not true or false; give `true` or `false`",
    ),
    (
        "no buffer",
        "performance:\n  thread_pools:\n    cpu: {body: {buffer: 0}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.body.buffer: 0B is less than 1KiB; give a size from 1KiB to 1GiB, such as `64KiB`",
    ),
    (
        "large buffer",
        "performance:\n  thread_pools:\n    cpu: {body: {buffer: 2GiB}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.body.buffer: 2GiB is more than 1GiB; give a size from 1KiB to 1GiB, such as `64KiB`",
    ),
    (
        "negative buffer",
        "performance:\n  thread_pools:\n    cpu: {body: {buffer: -1}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.body.buffer: -1 is negative; give a size from 1KiB to 1GiB, such as `64KiB`",
    ),
    (
        "absurd buffer",
        "performance:\n  thread_pools:\n    cpu: {body: {buffer: 99999999999999999999}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.body.buffer: 99999999999999999999 is more than 1GiB; give a size from 1KiB to 1GiB, such as `64KiB`",
    ),
    (
        "buffer in frames",
        "performance:\n  thread_pools:\n    cpu: {body: {buffer: 16 frames}}\n",
        "<yaml>:3:26: performance.thread_pools.cpu.body.buffer: `frames` is no unit of size (there are TiB, GiB, MiB, KiB and B); give a size from 1KiB to 1GiB, such as `64KiB`",
    ),
    (
        "no time to stall",
        "performance:\n  thread_pools:\n    cpu: {body: {stall_timeout: 0}}\n",
        "<yaml>:3:33: performance.thread_pools.cpu.body.stall_timeout: 0 is no time at all; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "absurd time to stall",
        "performance:\n  thread_pools:\n    cpu: {body: {stall_timeout: 25h}}\n",
        "<yaml>:3:33: performance.thread_pools.cpu.body.stall_timeout: 90000s is longer than 24h; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "never to stall",
        "performance:\n  thread_pools:\n    cpu: {body: {stall_timeout: never}}\n",
        "<yaml>:3:33: performance.thread_pools.cpu.body.stall_timeout: `never` is no time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "misspelt drain",
        "performance:\n  thread_pools:\n    cpu: {body: {on_drain: finsh}}\n",
        "<yaml>:3:28: performance.thread_pools.cpu.body.on_drain: the text \"finsh\" is unknown here; did you mean `finish`?",
    ),
    (
        "drain with bytes",
        "performance:\n  thread_pools:\n    cpu: {body: {on_drain: {end: bye}}}\n",
        "<yaml>:3:28: performance.thread_pools.cpu.body.on_drain: a mapping is not a word; give one of `finish` and `end`",
    ),
    (
        "misspelt key of a body",
        "performance:\n  thread_pools:\n    cpu: {body: {stal_timeout: 3s}}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.body.stal_timeout: this key is unknown; did you mean `stall_timeout`?",
    ),
    (
        "part of a key of a body",
        "performance:\n  thread_pools:\n    cpu: {body: {timeout: 3s}}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.body.timeout: this key is unknown; did you mean `stall_timeout`?",
    ),
    (
        "unknowable key of a body",
        "performance:\n  thread_pools:\n    cpu: {body: {chunks: 3}}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.body.chunks: this key is unknown; the keys here are `run`, `hold`, `buffer`, `stall_timeout` and `on_drain`",
    ),
    (
        "key of a pool in its body",
        "performance:\n  thread_pools:\n    cpu: {body: {max_streams: 3}}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.body.max_streams: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "body as word",
        "performance:\n  thread_pools:\n    cpu: {body: pool}\n",
        "<yaml>:3:17: performance.thread_pools.cpu.body: the text \"pool\" is not a mapping; write `key: value` lines",
    ),
    (
        "key of a body in its pool",
        "performance:\n  thread_pools:\n    cpu: {stall_timeout: 3s}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.stall_timeout: this key belongs under `body` of a pool",
    ),
    (
        "misspelt key of a body in its pool",
        "performance:\n  thread_pools:\n    cpu: {stal_timeout: 3s}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.stal_timeout: this key is unknown; did you mean `stall_timeout`, which belongs under `body` of a pool?",
    ),
    (
        "misspelt limit of streams",
        "performance:\n  thread_pools:\n    cpu: {max_stream: 3}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.max_stream: this key is unknown; did you mean `max_streams`?",
    ),
    (
        "negative limit of streams",
        "performance:\n  thread_pools:\n    cpu: {max_streams: -1}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.max_streams: -1 is negative; give a number from 0 to 10000000",
    ),
    (
        "absurd limit of streams",
        "performance:\n  thread_pools:\n    cpu: {max_streams: 10000001}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.max_streams: 10000001 is more than 10000000; give a number from 0 to 10000000",
    ),
    (
        "limit of streams as word",
        "performance:\n  thread_pools:\n    cpu: {max_streams: none}\n",
        "<yaml>:3:24: performance.thread_pools.cpu.max_streams: the text \"none\" is not a whole number; give a number from 0 to 10000000",
    ),
    (
        "empty batches",
        "performance:\n  thread_pools:\n    cpu: {batch: {max_items: 0, max_weight: -1}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.batch.max_items: a batch of 0 items would run nothing; give a number from 1 to 1000000\n<yaml>:3:45: performance.thread_pools.cpu.batch.max_weight: -1 is negative; give a number from 1 to 9223372036854775807",
    ),
    (
        "key of a batch in a pool",
        "performance:\n  thread_pools:\n    cpu: {max_items: 3}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.max_items: this key belongs under `batch` of a pool",
    ),
    (
        "no budget of bodies",
        "performance:\n  body_budget: 0\n",
        "<yaml>:2:16: performance.body_budget: 0B is less than 1MiB; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "small budget of bodies",
        "performance:\n  body_budget: 64KiB\n",
        "<yaml>:2:16: performance.body_budget: 64KiB is less than 1MiB; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "large budget of bodies",
        "performance:\n  body_budget: 2TiB\n",
        "<yaml>:2:16: performance.body_budget: 2TiB is more than 1TiB; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "absurd budget of bodies",
        "performance:\n  body_budget: 99999999999999999999TiB\n",
        "<yaml>:2:16: performance.body_budget: `99999999999999999999TiB` is more than 1TiB; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "budget of bodies in decimal units",
        "performance:\n  body_budget: 256MB\n",
        "<yaml>:2:16: performance.body_budget: `MB` is no unit of size (there are TiB, GiB, MiB, KiB and B); give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "budget of bodies as flag",
        "performance:\n  body_budget: true\n",
        "<yaml>:2:16: performance.body_budget: `true` is not a size; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "empty budget of bodies",
        "performance:\n  body_budget:\n",
        "<yaml>:2:3: performance.body_budget: nothing is given; give a size from 1MiB to 1TiB, such as `256MiB`",
    ),
    (
        "budget of bodies of a pool",
        "performance:\n  thread_pools:\n    cpu: {body_budget: 1GiB}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.body_budget: this key belongs under `performance`",
    ),
    (
        "body of all pools",
        "performance:\n  body: {run: pool}\n",
        "<yaml>:2:3: performance.body: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "body under thread_pools",
        "performance:\n  thread_pools:\n    body: {run: pool}\n",
        "<yaml>:3:5: performance.thread_pools.body: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "trust of all pools, misspelt",
        "performance:\n  trust: {priorit: x-a}\n",
        "<yaml>:2:11: performance.trust.priorit: this key is unknown; did you mean `priority`?",
    ),
    (
        "trust of all pools, contradictory",
        "performance:\n  trust: {deadline: x-a, priority: x-a}\n",
        "<yaml>:2:36: performance.trust.priority: `x-a` is also the header of `deadline`; give each its own",
    ),
    (
        "a route to a built-in pool that is left out",
        "performance:\n  thread_pools: {db: none}\n  routes: {/notes: db}\n",
        "<yaml>:3:20: performance.routes./notes: there is no pool `db`; the pools are `io`, `cpu`, `inference` and `embedding`",
    ),
    (
        "no pool of one's own",
        "performance:\n  thread_pools: {thumbnails: none}\n",
        "<yaml>:2:30: performance.thread_pools.thumbnails: the text \"none\" is not the settings of a pool; write `thumbnails_workers: 4`, or `thumbnails: {workers: 4}`",
    ),
    (
        "trust as flag",
        "performance:\n  thread_pools:\n    cpu: {trust: true}\n",
        "<yaml>:3:18: performance.thread_pools.cpu.trust: `true` is not a mapping; write `key: value` lines",
    ),
    (
        "misspelt trust",
        "performance:\n  thread_pools:\n    cpu: {trust: {deadlin: x-a}}\n",
        "<yaml>:3:19: performance.thread_pools.cpu.trust.deadlin: this key is unknown; did you mean `deadline`?",
    ),
    (
        "unknowable trust",
        "performance:\n  thread_pools:\n    cpu: {trust: {cookies: true}}\n",
        "<yaml>:3:19: performance.thread_pools.cpu.trust.cookies: this key is unknown; the keys here are `deadline`, `grpc_timeout`, `priority` and `malformed`",
    ),
    (
        "bad name of a header",
        "performance:\n  thread_pools:\n    cpu: {trust: {deadline: x request timeout}}\n",
        "<yaml>:3:29: performance.thread_pools.cpu.trust.deadline: the text \"x request timeout\" is not the name of a header; give one such as `x-request-timeout`",
    ),
    (
        "empty name of a header",
        "performance:\n  thread_pools:\n    cpu: {trust: {priority: ''}}\n",
        "<yaml>:3:29: performance.thread_pools.cpu.trust.priority: the text \"\" is not the name of a header; give one such as `x-request-timeout`",
    ),
    (
        "header as flag",
        "performance:\n  thread_pools:\n    cpu: {trust: {deadline: true}}\n",
        "<yaml>:3:29: performance.thread_pools.cpu.trust.deadline: `true` is not the name of a header; give one such as `x-request-timeout`",
    ),
    (
        "no header",
        "performance:\n  thread_pools:\n    cpu:\n      trust:\n        # why\n        priority:\n",
        "<yaml>:6:9: performance.thread_pools.cpu.trust.priority: nothing is given; give one such as `x-request-timeout`",
    ),
    (
        "grpc-timeout as text",
        "performance:\n  thread_pools:\n    cpu: {trust: {grpc_timeout: 'yes'}}\n",
        "<yaml>:3:33: performance.thread_pools.cpu.trust.grpc_timeout: the text \"yes\" is not true or false; give `true` or `false`",
    ),
    (
        "grpc-timeout by its name",
        "performance:\n  thread_pools:\n    cpu: {trust: {deadline: Grpc-Timeout}}\n",
        "<yaml>:3:29: performance.thread_pools.cpu.trust.deadline: `grpc-timeout` is read in a way of its own; write `grpc_timeout: true` for it",
    ),
    (
        "one header for two things",
        "performance:\n  thread_pools:\n    cpu: {trust: {deadline: x-a, priority: X-A}}\n",
        "<yaml>:3:44: performance.thread_pools.cpu.trust.priority: `x-a` is also the header of `deadline`; give each its own",
    ),
    (
        "misspelt malformed",
        "performance:\n  thread_pools:\n    cpu: {trust: {malformed: rejected}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.trust.malformed: the text \"rejected\" is unknown here; did you mean `reject`?",
    ),
    (
        "unknowable malformed",
        "performance:\n  thread_pools:\n    cpu: {trust: {malformed: panic}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.trust.malformed: the text \"panic\" is unknown here; give one of `ignore` and `reject`",
    ),
    (
        "malformed as flag",
        "performance:\n  thread_pools:\n    cpu: {trust: {malformed: false}}\n",
        "<yaml>:3:30: performance.thread_pools.cpu.trust.malformed: `false` is not a word; give one of `ignore` and `reject`",
    ),
    (
        "server workers",
        "performance:\n  workers: 0\n",
        "<yaml>:2:12: performance.workers: 0 threads could never serve a connection; give a number from 1 to 1024, or `auto`",
    ),
    (
        "server workers text",
        "performance:\n  workers: four\n",
        "<yaml>:2:12: performance.workers: the text \"four\" is not a whole number; give a number from 1 to 1024, or `auto`",
    ),
    (
        "zero time",
        "performance:\n  keep_alive_timeout: 0\n",
        "<yaml>:2:23: performance.keep_alive_timeout: 0 is no time at all; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "negative time",
        "performance:\n  keep_alive_timeout: -1.5\n",
        "<yaml>:2:23: performance.keep_alive_timeout: -1.5 is negative; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "negative text time",
        "performance:\n  keep_alive_timeout: -5s\n",
        "<yaml>:2:23: performance.keep_alive_timeout: `-5s` is negative; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "NaN time",
        "performance:\n  keep_alive_timeout: .NaN\n",
        "<yaml>:2:23: performance.keep_alive_timeout: `NaN` is not a time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "infinite time",
        "performance:\n  keep_alive_timeout: -.inf\n",
        "<yaml>:2:23: performance.keep_alive_timeout: -inf is negative; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "absurd time",
        "performance:\n  keep_alive_timeout: 90000\n",
        "<yaml>:2:23: performance.keep_alive_timeout: 90000s is longer than 24h; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "more absurd time",
        "performance:\n  keep_alive_timeout: 1e300\n",
        "<yaml>:2:23: performance.keep_alive_timeout: 1e300s is longer than 24h; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "short time",
        "performance:\n  keep_alive_timeout: 10us\n",
        "<yaml>:2:23: performance.keep_alive_timeout: 10us is shorter than 1ms; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "time without unit",
        "performance:\n  keep_alive_timeout: '30'\n",
        "<yaml>:2:23: performance.keep_alive_timeout: `30` is text without a unit; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "time with strange unit",
        "performance:\n  keep_alive_timeout: 30 days\n",
        "<yaml>:2:23: performance.keep_alive_timeout: `days` is no unit of time (there are h, m, s, ms, us and ns); give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "no time",
        "performance:\n  keep_alive_timeout: soon\n",
        "<yaml>:2:23: performance.keep_alive_timeout: `soon` is no time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "time list",
        "performance:\n  keep_alive_timeout: [30]\n",
        "<yaml>:2:23: performance.keep_alive_timeout: a list is not a time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "port",
        "server:\n  port: 65536\n",
        "<yaml>:2:9: server.port: 65536 is more than 65535; give a number from 0 to 65535",
    ),
    (
        "host",
        "server:\n  host: localhost\n",
        "<yaml>:2:9: server.host: the text \"localhost\" is not an IP address; give one such as 127.0.0.1, or 0.0.0.0 for every interface of IPv4",
    ),
    (
        "host number",
        "server:\n  host: 127.0\n",
        "<yaml>:2:9: server.host: `127.0` is not an IP address; give one such as 127.0.0.1, or 0.0.0.0 for every interface of IPv4",
    ),
    (
        "unknown pool",
        "performance:\n  routes:\n    GET /a: cpuu\n",
        "<yaml>:3:13: performance.routes.GET /a: there is no pool `cpuu`; the pools are `io`, `cpu`, `inference`, `embedding` and `db`",
    ),
    (
        "pool in route is a number",
        "performance:\n  routes:\n    GET /a: 3\n",
        "<yaml>:3:13: performance.routes.GET /a: `3` is not the name of a pool; give one of `io`, `cpu`, `inference`, `embedding` and `db`",
    ),
    (
        "routes as list",
        "performance:\n  routes:\n    - GET /a\n",
        "<yaml>:3:5: performance.routes: a list is not a mapping; write `key: value` lines",
    ),
    (
        "equal routes",
        "performance:\n  routes:\n    GET /a/{x}: cpu\n    POST /a/{x}: cpu\n    GET /a/{y}: io\n",
        "<yaml>:5:5: performance.routes.GET /a/{y}: this is the same route as `GET /a/{x}`; keep one of the two (the other is on line 3)",
    ),
    (
        "equal routes by case",
        "performance:\n  routes:\n    GET /a: cpu\n    get /a: io\n",
        "<yaml>:4:5: performance.routes.get /a: this is the same route as `GET /a`; keep one of the two (the other is on line 3)",
    ),
    (
        "equal routes literally",
        "performance:\n  routes:\n    GET /a: cpu\n    GET /a: io\n",
        "<yaml>:4:5: performance.routes.GET /a: the same key is given twice; keep one of the two (the other is on line 3)",
    ),
    (
        "overlapping routes",
        "performance:\n  routes:\n    /a/{x}: cpu\n    /a/{*y}: io\n",
        "<yaml>:4:5: performance.routes./a/{*y}: no path could tell this route from `/a/{x}`; keep one of the two (the other is on line 3)",
    ),
    (
        "old parameter",
        "performance:\n  routes:\n    GET /a/:id: cpu\n",
        "<yaml>:3:5: performance.routes.GET /a/:id: `:id` is the old syntax for a parameter; write `{id}`",
    ),
    (
        "old wildcard",
        "performance:\n  routes:\n    /files/*path: cpu\n",
        "<yaml>:3:5: performance.routes./files/*path: `*path` is the old syntax for a parameter; write `{*path}`",
    ),
    (
        "no slash",
        "performance:\n  routes:\n    v1/hash: cpu\n",
        "<yaml>:3:5: performance.routes.v1/hash: a path begins with `/`; write `/v1/hash`",
    ),
    (
        "method alone",
        "performance:\n  routes:\n    POST: cpu\n",
        "<yaml>:3:5: performance.routes.POST: a path must follow the method; write `POST /path`",
    ),
    (
        "unknown method",
        "performance:\n  routes:\n    PSOT /a: cpu\n",
        "<yaml>:3:5: performance.routes.PSOT /a: `PSOT` is no known method; did you mean `POST`?",
    ),
    (
        "unknowable method",
        "performance:\n  routes:\n    FETCHALL /a: cpu\n",
        "<yaml>:3:5: performance.routes.FETCHALL /a: `FETCHALL` is no known method; write a method such as `GET` or `POST`, or the path alone for all methods",
    ),
    (
        "braces",
        "performance:\n  routes:\n    '/a/{id': cpu\n",
        "<yaml>:3:5: performance.routes./a/{id: its braces do not match or hold no name; write `/{id}`, and `{{` or `}}` for a brace itself",
    ),
    (
        "two parameters",
        "performance:\n  routes:\n    '/a/{x}-{y}': cpu\n",
        "<yaml>:3:5: performance.routes./a/{x}-{y}: a segment has one parameter at most, and nothing after it; write `/{a}/{b}`",
    ),
    (
        "catch-all inside",
        "performance:\n  routes:\n    '/a/{*x}/b': cpu\n",
        "<yaml>:3:5: performance.routes./a/{*x}/b: a parameter that takes the rest of the path stands alone at its end; write `/files/{*path}`",
    ),
    (
        "query",
        "performance:\n  routes:\n    '/a?b=c': cpu\n",
        "<yaml>:3:5: performance.routes./a?b=c: a path has no '?'; a route is a method and a path, nothing more",
    ),
    ("empty", "", "<yaml>:1:1: nothing is set here; write a setting, or `{}` for the defaults"),
    ("comments only", "# nothing\n", "<yaml>:2:1: nothing is set here; write a setting, or `{}` for the defaults"),
    (
        "two documents",
        "general: {verbose: true}\n---\nserver: {port: 1}\n",
        "<yaml>:3:1: a second document begins here; keep one, without `---` between",
    ),
    (
        "fault after the document",
        "general: {verbose: true}\n...\n%bad\n",
        "<yaml>:3:5: this is not YAML: found unknown directive name, while scanning a directive at line 3 column 1",
    ),
    (
        "syntax",
        "general:\n  verbose: true\n bad: [\n",
        "<yaml>:3:2: this is not YAML: did not find expected key, while parsing a block mapping",
    ),
    (
        "tab",
        "general:\n\tverbose: true\n",
        "<yaml>:2:1: this is not YAML: found character that cannot start any token, while scanning for the next token; a tab cannot indent: use blanks",
    ),
    (
        "unclosed",
        "general: {verbose: true\n",
        "<yaml>:2:1: this is not YAML: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 10",
    ),
    (
        "variable",
        "performance: {workers: ${CORES}}\n",
        "<yaml>:1:25: this is not YAML: did not find expected ',' or '}', while parsing a flow mapping at line 1 column 14; variables such as `${NAME}` are not replaced: write the value",
    ),
    (
        "number in quotes",
        "performance:\n  workers: '4'\n",
        "<yaml>:2:12: performance.workers: the text \"4\" is no number for YAML; write 4",
    ),
    (
        "number with a zero before it",
        "performance:\n  workers: 08\n",
        "<yaml>:2:12: performance.workers: the text \"08\" is no number for YAML; write 8",
    ),
    (
        "word in capitals",
        "performance:\n  workers: Auto\n",
        "<yaml>:2:12: performance.workers: the text \"Auto\" is unknown here; did you mean `auto`?",
    ),
    (
        "two points in a time",
        "server:\n  shutdown_timeout: 1.5.2\n",
        "<yaml>:2:21: server.shutdown_timeout: `1.5.2` is no time; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "delay that leaves no time",
        "server:\n  shutdown_delay: 25\n  shutdown_timeout: 25\n",
        "<yaml>:2:19: server.shutdown_delay: 25s is not less than `shutdown_timeout`, which is 25s and includes this delay; give less, or raise `shutdown_timeout`",
    ),
    (
        "delay longer than the default timeout",
        "server: {shutdown_delay: 1m}\n",
        "<yaml>:1:26: server.shutdown_delay: 60s is not less than `shutdown_timeout`, which is 25s and includes this delay; give less, or raise `shutdown_timeout`",
    ),
    (
        "default of the documentation as an age",
        "server:\n  max_connection_age: none\n",
        "<yaml>:2:23: server.max_connection_age: `none` is the default; leave this key out",
    ),
    (
        "default of the documentation as a weight",
        "performance:\n  thread_pools: {cpu: {batch: {max_weight: none}}}\n",
        "<yaml>:2:44: performance.thread_pools.cpu.batch.max_weight: `none` is the default; leave this key out",
    ),
    (
        "delay below the shortest",
        "server: {shutdown_delay: 1us}\n",
        "<yaml>:1:26: server.shutdown_delay: 1us is shorter than 1ms; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "age of nothing",
        "server: {max_connection_age: 0}\n",
        "<yaml>:1:30: server.max_connection_age: 0 is no time at all; give a time from 1ms to 24h, such as `30` (seconds) or `250ms`",
    ),
    (
        "address of two colons without quotes",
        "server:\n  host: ::\n",
        "<yaml>:2:10: this is not YAML: mapping values are not allowed in this context; an address such as `::` needs quotes: `\"::\"`",
    ),
    (
        "address in brackets without quotes",
        "server:\n  host: [::]:80\n",
        "<yaml>:2:10: this is not YAML: did not find expected node content, while parsing a flow node; an address such as `::` needs quotes: `\"::\"`",
    ),
    (
        "asterisk for all addresses",
        "server:\n  host: *\n  port: 80\n",
        "<yaml>:2:10: this is not YAML: did not find expected alphabetic or numeric character, while scanning an alias at line 2 column 9; a text that begins with such a character needs quotes",
    ),
    (
        "text that begins with an at sign",
        "app:\n  name: @home\n",
        "<yaml>:2:9: this is not YAML: found character that cannot start any token, while scanning for the next token; a text that begins with such a character needs quotes",
    ),
    ("unknown alias", "general: *nowhere\n", "<yaml>:1:10: this is not YAML: unknown anchor"),
    (
        "tag",
        "performance:\n  workers: !big 4\n",
        "<yaml>:2:12: performance.workers: a value with the tag `!big` is not a whole number; give a number from 1 to 1024, or `auto`",
    ),
    (
        "core tag on number",
        "performance:\n  workers: !!python/object:os.system 4\n",
        "<yaml>:2:12: performance.workers: a tag has no meaning here; leave it out",
    ),
    (
        "core tag on mapping",
        "server:\n  port: 1\ngeneral: !!python/x {verbose: true}\n",
        "<yaml>:3:10: general: a tag has no meaning here; leave it out",
    ),
    (
        "verbatim tag",
        "general: !<tag:yaml.org,2002:python> {verbose: true}\n",
        "<yaml>:1:24: general: a tag has no meaning here; leave it out",
    ),
    (
        "control character",
        "general:\n  verbose: \u{7}true\n",
        "<yaml>:2:12: the character U+0007 may not stand in YAML; leave it out, or write it as an escape in double quotes",
    ),
    ("number as key", "server:\n  3000: port\n", "<yaml>:2:3: server: `3000` is not a key; a key here is a word"),
    ("list as key", "? [a, b]\n: 3\n", "<yaml>:1:3: a list is not a key; a key here is a word"),
    (
        "CRLF",
        "general:\r\n  verbose: true\r\n\r\nserver:\r\n  # c\r\n  port: many\r\n",
        "<yaml>:6:9: server.port: the text \"many\" is not a whole number; give a number from 0 to 65535",
    ),
    (
        "quoted key",
        "\"general\":\n  'verbose'  :   3\n",
        "<yaml>:2:18: general.verbose: `3` is not true or false; give `true` or `false`",
    ),
    (
        "after block scalar",
        "app:\n  text: |\n    a\n    b: c\n\n  more: >\n    x\ngeneral:\n  verbose: 1\n",
        "<yaml>:9:12: general.verbose: `1` is not true or false; give `true` or `false`",
    ),
    (
        "umlauts before",
        "app: {name: 'äöü'}\nserver: {host: \"äö\", port: -1}\n",
        "<yaml>:2:16: server.host: the text \"äö\" is not an IP address; give one such as 127.0.0.1, or 0.0.0.0 for every interface of IPv4\n<yaml>:2:28: server.port: -1 is negative; give a number from 0 to 65535",
    ),
    (
        "flow over lines",
        "server: {\n  host: 127.0.0.1,\n  # c\n  port: -1\n}\n",
        "<yaml>:4:9: server.port: -1 is negative; give a number from 0 to 65535",
    ),
    (
        "value on the next line",
        "server:\n  port:\n    -1\n",
        "<yaml>:3:5: server.port: -1 is negative; give a number from 0 to 65535",
    ),
    (
        "alias value",
        "app: {n: &n -1}\nserver:\n  port: *n\n",
        "<yaml>:1:10: server.port: -1 is negative; give a number from 0 to 65535",
    ),
    (
        "merge key",
        "general: &g {verbose: true}\nserver:\n  <<: *g\n",
        "<yaml>:3:3: server.<<: mappings are not merged here; write the keys out, or give a whole value as an alias, such as `cpu: *usual`",
    ),
    (
        "pool that is nearly a built-in one",
        "performance:\n  thread_pools:\n    inferense_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.inferense_workers: this would be a pool of its own; did you mean `inference_workers`? If not, write `inferense: {workers: ...}`",
    ),
    (
        "plural of a built-in pool",
        "performance:\n  thread_pools:\n    cpus_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.cpus_workers: this would be a pool of its own; did you mean `cpu_workers`? If not, write `cpus: {workers: ...}`",
    ),
    (
        "plural of a misspelt built-in pool",
        "performance:\n  thread_pools:\n    embedings_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.embedings_workers: this would be a pool of its own; did you mean `embedding_workers`? If not, write `embedings: {workers: ...}`",
    ),
    (
        "built-in pool in capitals",
        "performance:\n  thread_pools:\n    CPU_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.CPU_workers: this would be a pool of its own; did you mean `cpu_workers`?",
    ),
    (
        "swapped letters of a built-in pool",
        "performance:\n  thread_pools:\n    cup_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.cup_workers: this would be a pool of its own; did you mean `cpu_workers`? If not, write `cup: {workers: ...}`",
    ),
    (
        "plural of a built-in pool, long",
        "performance:\n  thread_pools:\n    cpus: {nice: 3}\n",
        "<yaml>:3:5: performance.thread_pools.cpus: there is no pool of this name; did you mean `cpu`?",
    ),
    (
        "plural of a built-in pool without its ending",
        "performance:\n  thread_pools:\n    cpus: 3\n",
        "<yaml>:3:11: performance.thread_pools.cpus: this key is unknown; did you mean `cpu_workers`?",
    ),
    (
        "own pool with a misspelt ending",
        "performance:\n  thread_pools:\n    thumbnails_worker: 4\n",
        "<yaml>:3:24: performance.thread_pools.thumbnails_worker: this key is unknown; did you mean `thumbnails_workers`?",
    ),
    (
        "own pool with another ending",
        "performance:\n  thread_pools:\n    thumbnails_threads: 4\n",
        "<yaml>:3:25: performance.thread_pools.thumbnails_threads: this key is unknown; did you mean `thumbnails_workers`?",
    ),
    (
        "own pool that looks like a built-in one, with a misspelt ending",
        "performance:\n  thread_pools:\n    gpu_worker: 4\n",
        "<yaml>:3:17: performance.thread_pools.gpu_worker: this key is unknown; did you mean `gpu_workers`?",
    ),
    (
        "built-in pool with a hyphen",
        "performance:\n  thread_pools:\n    cpu-workers: 3\n",
        "<yaml>:3:18: performance.thread_pools.cpu-workers: this key is unknown; did you mean `cpu_workers`?",
    ),
    (
        "workers of no pool",
        "performance:\n  thread_pools:\n    workers: 8\n",
        "<yaml>:3:14: performance.thread_pools.workers: this does not say of which pool; write `NAME_workers`, such as `cpu_workers` (the threads that serve connections are `performance.workers`)",
    ),
    (
        "setting of no pool",
        "performance:\n  thread_pools:\n    queue_capacity: 5\n",
        "<yaml>:3:21: performance.thread_pools.queue_capacity: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "general key under thread_pools",
        "performance:\n  thread_pools:\n    verbose: true\n",
        "<yaml>:3:14: performance.thread_pools.verbose: this key belongs under `general`",
    ),
    (
        "routes under thread_pools",
        "performance:\n  thread_pools:\n    routes:\n      GET /a: io\n",
        "<yaml>:3:5: performance.thread_pools.routes: this key belongs under `performance`",
    ),
    (
        "route under thread_pools",
        "performance:\n  thread_pools:\n    GET /a: io\n",
        "<yaml>:3:5: performance.thread_pools.GET /a: a route belongs under `performance.routes`",
    ),
    (
        "pool's workers under performance",
        "performance:\n  cpu_workers: 4\n",
        "<yaml>:2:3: performance.cpu_workers: this key belongs under `performance.thread_pools`",
    ),
    (
        "own pool's workers under performance",
        "performance:\n  thumbnails_workers: 4\n",
        "<yaml>:2:3: performance.thumbnails_workers: the workers of a pool belong under `performance.thread_pools`; the threads that serve connections are `workers`",
    ),
    (
        "misspelt pool's workers under performance",
        "performance:\n  cpus_workers: 4\n",
        "<yaml>:2:3: performance.cpus_workers: this key is unknown; did you mean `cpu_workers`, which belongs under `performance.thread_pools`?",
    ),
    (
        "pool under performance",
        "performance:\n  cpu: {workers: 4}\n",
        "<yaml>:2:3: performance.cpu: this key belongs under `performance.thread_pools`",
    ),
    (
        "pool's setting under performance",
        "performance:\n  queue_capacity: 4\n",
        "<yaml>:2:3: performance.queue_capacity: this key belongs to a pool, such as `cpu: {workers: 4, ...}` under `performance.thread_pools`",
    ),
    (
        "server key under performance",
        "performance:\n  port: 3\n",
        "<yaml>:2:3: performance.port: this key belongs under `server`",
    ),
    (
        "section under performance",
        "performance:\n  server: {port: 3}\n",
        "<yaml>:2:3: performance.server: this key belongs at the top level",
    ),
    (
        "part of a key",
        "performance:\n  keep_alive: 3\n",
        "<yaml>:2:3: performance.keep_alive: this key is unknown; did you mean `keep_alive_timeout`?",
    ),
    (
        "thread_pools at the top",
        "thread_pools:\n  cpu_workers: 3\n",
        "<yaml>:1:1: thread_pools: this key belongs under `performance`",
    ),
    (
        "pool's workers at the top",
        "cpu_workers: 3\n",
        "<yaml>:1:1: cpu_workers: this key belongs under `performance.thread_pools`",
    ),
    (
        "misspelt thread_pools at the top",
        "thread_pool: {}\n",
        "<yaml>:1:1: thread_pool: this key is unknown; did you mean `thread_pools`, which belongs under `performance`?",
    ),
    ("route at the top", "GET /a: io\n", "<yaml>:1:1: GET /a: a route belongs under `performance.routes`"),
    (
        "performance key under server",
        "server: {workers: 4}\n",
        "<yaml>:1:10: server.workers: this key belongs under `performance`",
    ),
    (
        "part of two keys",
        "server: {timeout: 4}\n",
        "<yaml>:1:10: server.timeout: this key is unknown; did you mean one of `shutdown_timeout` and `header_read_timeout`?",
    ),
    (
        "the only key",
        "general: {log: true}\n",
        "<yaml>:1:11: general.log: this key is unknown; the key here is `verbose`",
    ),
    (
        "part of a pool's key",
        "performance:\n  thread_pools:\n    cpu: {timeout: 5}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.timeout: this key is unknown; did you mean `queue_timeout`?",
    ),
    (
        "more than a pool's key",
        "performance:\n  thread_pools:\n    cpu: {keep_alive_timeout: 5}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.keep_alive_timeout: this key is unknown; did you mean `keep_alive`?",
    ),
    (
        "another word for a key that has several",
        "performance:\n  thread_pools:\n    cpu: {max_queue: 5}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.max_queue: this key is unknown; did you mean one of `queue_capacity`, `queue_timeout`, `queue` and `queue_target`?",
    ),
    (
        "threads of a pool",
        "performance:\n  thread_pools:\n    cpu: {threads: 5}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.threads: this key is unknown; did you mean `workers`?",
    ),
    (
        "header under a pool",
        "performance:\n  thread_pools:\n    cpu: {deadline: x-timeout}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.deadline: this key belongs under `trust`, of a pool or of `performance`",
    ),
    (
        "misspelt header under a pool",
        "performance:\n  thread_pools:\n    cpu: {priorty: x-priority}\n",
        "<yaml>:3:11: performance.thread_pools.cpu.priorty: this key is unknown; did you mean `priority`, which belongs under `trust`, of a pool or of `performance`?",
    ),
    (
        "merge key in a pool",
        "performance:\n  thread_pools:\n    cpu: &usual {nice: 1}\n    io: {<<: *usual}\n",
        "<yaml>:4:10: performance.thread_pools.io.<<: mappings are not merged here; write the keys out, or give a whole value as an alias, such as `cpu: *usual`",
    ),
    (
        "line break in a misspelt name",
        "performance:\n  thread_pools:\n    \"a\\nb_worker\": 4\n",
        "<yaml>:3:20: performance.thread_pools.a\\nb_worker: this key is unknown; did you mean `a\\nb_workers`?",
    ),
    (
        "pool that is two letters from a built-in one",
        "performance:\n  thread_pools:\n    inferrance_workers: 3\n",
        "<yaml>:3:5: performance.thread_pools.inferrance_workers: this would be a pool of its own; did you mean `inference_workers`? If not, write `inferrance: {workers: ...}`",
    ),
    (
        "built-in pool with its ending in front",
        "performance:\n  thread_pools:\n    workers_cpu: 3\n",
        "<yaml>:3:18: performance.thread_pools.workers_cpu: this key is unknown; did you mean `cpu_workers`?",
    ),
    (
        "section of a pool under thread_pools",
        "performance:\n  thread_pools:\n    trust: {deadline: x-deadline}\n",
        "<yaml>:3:5: performance.thread_pools.trust: this key belongs under `performance`",
    ),
    (
        "part of thread_pools at the top",
        "pools:\n  cpu_workers: 3\n",
        "<yaml>:1:1: pools: this key is unknown; did you mean `thread_pools`, which belongs under `performance`?",
    ),
    (
        "threads at the top",
        "threads: 4\n",
        "<yaml>:1:1: threads: this key is unknown; did you mean `workers`, which belongs under `performance`?",
    ),
    (
        "keep_alive of connections",
        "server: {keep_alive: 30}\n",
        "<yaml>:1:10: server.keep_alive: this key is unknown; did you mean `keep_alive_timeout`, which belongs under `performance`?",
    ),
    (
        "key with its section in front",
        "server.port: 3000\n",
        "<yaml>:1:1: server.port: this key is unknown; did you mean `port`, which belongs under `server`?",
    ),
];

#[test]
fn every_broken_configuration_gets_its_error() {
    for (name, text, expected) in CASES {
        match Config::from_yaml(text) {
            Ok(config) => panic!("{name}: was read as {config:?}"),
            Err(error) => assert_eq!(error.to_string(), *expected, "{name}"),
        }
    }
}

#[test]
fn a_pool_that_is_nearly_a_built_in_one_is_made_when_it_is_meant() {
    for text in [
        "performance:\n  thread_pools: {cpus_workers: 3}\n  routes: {GET /a: cpus}\n",
        "performance:\n  routes: {GET /a: cpus}\n  thread_pools: {cpus_workers: 3}\n",
        "performance:\n  thread_pools: {cpus: {workers: 3}}\n",
    ] {
        let config = Config::from_yaml(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(config.performance.thread_pools.get("cpus").is_some(), "{text}");
        let written = config.to_yaml().expect("what was read is valid");
        assert_eq!(Config::from_yaml(&written).expect(&written), config, "{written}");
        // In code, no other name can have been meant.
        let made = Config::default().pool("inferences", tower_offload::PoolConfig::new(2));
        let written = made.to_yaml().expect("the name is a good one");
        assert_eq!(Config::from_yaml(&written).expect(&written), made, "{written}");
    }
}

#[test]
fn short_words_that_share_letters_with_a_built_in_pool_are_pools_of_their_own() {
    for name in ["gpu", "id", "ip", "vdb", "web", "rio", "reference"] {
        let text = format!("performance: {{thread_pools: {{{name}_workers: 3}}}}\n");
        let config = Config::from_yaml(&text).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.performance.thread_pools.get(name).is_some(), "{text}");
    }
}
