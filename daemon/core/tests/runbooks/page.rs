//! Pages of an operator's own, which use what the shipped ones do not: every deed, conditions, questions, ways back,
//! groups before and after the promotion.

/// A failover that asks, tells people, stops jobs and starts them again.
pub(crate) const FAILOVER: &str = r#"
name = "failover"
kind = "failover"
title = "Ours"
prose = "Ours."
deadline = "20m"

[[step]]
name = "measure-loss"
title = "Measure"
do = "measure-loss"
gives = ["loss"]
timeout = "10s"

[[step]]
name = "stop-jobs"
title = "Stop the jobs of the standby region"
do = "run"
with = { argv = ["set", "jobs-stopped"], env = { RUN = "{run}" } }
timeout = "10s"
retry = { attempts = 2, pause = "100ms" }
undo = { do = "run", with = { argv = ["clear", "jobs-stopped"] } }

[[step]]
name = "ask"
title = "Ask"
do = "approve"
with = { text = "move {workload} to {to}?" }
when = ["ordered"]
timeout = "10s"

[[step]]
name = "tell-automatic"
title = "Tell"
do = "notify"
with = { text = "{workload} moves by itself" }
when = ["automatic"]
timeout = "10s"

[[step]]
name = "fence"
title = "Fence"
do = "fence"
needs = ["loss"]
gives = ["fenced"]
timeout = "90s"
retry = { attempts = 2, pause = "500ms" }

[[step]]
name = "tell-closed"
title = "Tell"
do = "notify"
with = { text = "{from} is closed" }
timeout = "10s"

[[step]]
name = "promote"
title = "Promote"
do = "promote"
needs = ["fenced"]
gives = ["primary"]
point_of_no_return = true
timeout = "60s"
retry = { attempts = 3, pause = "200ms" }
approve = "promote in {to}?"

[[step]]
name = "await-serving"
title = "Serving"
do = "await-serving"
parallel = "opening"
needs = ["primary"]
gives = ["serving"]
timeout = "60s"

[[step]]
name = "open-gates"
title = "Let the application start"
do = "http"
with = { method = "POST", url = "http://gate.{to}.example.net/open", body = "{run}", expect = [200, 409] }
parallel = "opening"
timeout = "10s"
retry = { attempts = 2, pause = "100ms" }

[[step]]
name = "pause"
title = "Let caches fill"
do = "wait"
with = { length = "3s" }
timeout = "5s"

[[step]]
name = "switch-dns"
title = "Names"
do = "switch-dns"
needs = ["serving"]
gives = ["names"]
timeout = "30s"
retry = { attempts = 3, pause = "500ms" }

[[step]]
name = "verify"
title = "Verify"
do = "verify"
parallel = "after"
needs = ["names"]
gives = ["verified"]
timeout = "2m"

[[step]]
name = "mark"
title = "Mark the move in the database"
do = "sql"
with = { on = "to", statement = "insert into moves values ('{run}') on conflict do nothing", expect = "ok" }
parallel = "after"
when = ["canary"]
timeout = "10s"

[[step]]
name = "report"
title = "Report"
do = "report"
needs = ["verified"]
timeout = "10s"
retry = { attempts = 2, pause = "1s" }
"#;

/// A switchover with a group before the fence, and two things of its own to take back.
pub(crate) const SWITCHOVER: &str = r#"
name = "switchover"
kind = "switchover"
title = "Ours"
prose = "Ours."
deadline = "5m"

[[step]]
name = "check-standby"
title = "Check"
do = "check-standby"
gives = ["ready"]
timeout = "15s"
retry = { attempts = 2, pause = "500ms" }

[[step]]
name = "stop-jobs"
title = "Stop the jobs"
do = "run"
with = { argv = ["set", "jobs-stopped"] }
timeout = "10s"
retry = { attempts = 2, pause = "100ms" }
undo = { do = "run", with = { argv = ["clear", "jobs-stopped"] } }

[[step]]
name = "close-gates"
title = "Tell the application to hold its writes"
do = "http"
with = { url = "http://gate.{from}.example.net/set" }
parallel = "before"
timeout = "10s"
undo = { do = "http", with = { url = "http://gate.{from}.example.net/clear" } }

[[step]]
name = "drain"
title = "Drain"
do = "drain"
parallel = "before"
needs = ["ready"]
timeout = "60s"
retry = { attempts = 2, pause = "100ms" }

[[step]]
name = "mark"
title = "Mark the end in the database"
do = "sql"
with = { on = "from", statement = "set" }
parallel = "before"
timeout = "10s"
undo = { do = "sql", with = { on = "from", statement = "clear" } }

[[step]]
name = "fence"
title = "Fence"
do = "fence"
needs = ["ready"]
gives = ["fenced"]
timeout = "10s"
retry = { attempts = 2, pause = "100ms" }
approve = "close {from} to writes?"
undo = { do = "lift" }

[[step]]
name = "catch-up"
title = "Catch up"
do = "catch-up"
needs = ["fenced"]
gives = ["caught-up"]
timeout = "10s"
retry = { attempts = 3, pause = "100ms" }

[[step]]
name = "tell-closed"
title = "Tell"
do = "notify"
with = { text = "{from} is closed" }
timeout = "10s"

[[step]]
name = "promote"
title = "Promote"
do = "promote"
needs = ["fenced", "caught-up"]
gives = ["primary"]
point_of_no_return = true
timeout = "60s"
retry = { attempts = 5, pause = "200ms" }

[[step]]
name = "rejoin"
title = "Rejoin"
do = "rejoin"
parallel = "after"
when = ["host"]
needs = ["primary"]
gives = ["rejoined"]
timeout = "4h"
retry = { attempts = 3, pause = "1s" }

[[step]]
name = "await-serving"
title = "Serving"
do = "await-serving"
parallel = "after"
needs = ["primary"]
gives = ["serving"]
timeout = "60s"

[[step]]
name = "switch-dns"
title = "Names"
do = "switch-dns"
needs = ["serving"]
gives = ["names"]
timeout = "30s"
retry = { attempts = 3, pause = "500ms" }

[[step]]
name = "await-replication"
title = "Replication"
do = "await-replication"
when = ["host"]
needs = ["primary", "rejoined"]
gives = ["replicating"]
timeout = "60s"
retry = { attempts = 3, pause = "1s" }
after = ["rejoin"]

[[step]]
name = "tell"
title = "Tell"
do = "notify"
with = { text = "{workload} lives in {to}" }
after = ["switch-dns"]
timeout = "10s"

[[step]]
name = "report"
title = "Report"
do = "report"
after = ["tell", "await-replication"]
timeout = "10s"
"#;

/// A rejoin that asks before anything is lost, and tells people beside the copy.
pub(crate) const REJOIN: &str = r#"
name = "rejoin"
kind = "rejoin"
title = "Ours"
prose = "Ours."

[[step]]
name = "fence"
title = "Fence"
do = "fence"
gives = ["fenced"]
timeout = "30s"
retry = { attempts = 2, pause = "200ms" }

[[step]]
name = "salvage"
title = "Salvage"
do = "salvage"
needs = ["fenced"]
gives = ["salvaged"]
when = ["host"]
timeout = "1h"
retry = { attempts = 2, pause = "1s" }

[[step]]
name = "rejoin"
title = "Rejoin"
do = "rejoin"
parallel = "work"
needs = ["fenced", "salvaged"]
gives = ["rejoined"]
when = ["host"]
timeout = "4h"
retry = { attempts = 2, pause = "1s" }
approve = "make {from} a standby of {to}?"

[[step]]
name = "tell"
title = "Tell"
do = "notify"
with = { text = "{from} is back" }
parallel = "work"
timeout = "10s"

[[step]]
name = "await-replication"
title = "Replication"
do = "await-replication"
needs = ["rejoined"]
gives = ["replicating"]
when = ["host"]
timeout = "60s"
retry = { attempts = 2, pause = "1s" }

[[step]]
name = "report"
title = "Report"
do = "report"
timeout = "10s"
"#;
