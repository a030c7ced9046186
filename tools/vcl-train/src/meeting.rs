//! From flags and the environment to this rank among all.

use std::env;
use std::net::ToSocketAddrs;
use std::time::Duration;

use process::{Error, Result, ResultExt};
use ranks::{Meeting, World};
use serde_json::{Value, json};

use crate::cli::Args;
use crate::plan::Plan;
use crate::transport::TransportName;

const SECRET: &str = "FLOWLENS_SECRET";

/// Meets the other ranks of this run.
pub fn world(args: &Args) -> Result<World> {
    let get = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    check_count(args, get)?;
    if args.ranks == 1 {
        return Ok(World::alone());
    }
    match args.transport {
        TransportName::Tcp => met(args, get),
        TransportName::Mpi => mpi(args.ranks as usize),
        TransportName::Nccl => {
            let card = card(args)?;
            let world = ranks::over_cards(met(args, get)?, card, limit(args));
            world.map_err(|cause| Error::environment("--transport nccl", cause))
        }
    }
}

fn met(args: &Args, get: impl Fn(&str) -> Option<String>) -> Result<World> {
    let meeting = tcp(args, get)?;
    let doubt = |cause: &str| process::warn(&args.common, cause);
    meeting.world(doubt).map_err(|cause| Error::environment("ranks", cause))
}

/// The number of the card that this rank computes on.
fn card(args: &Args) -> Result<usize> {
    let card = model::device::card(&args.device).map_err(|cause| Error::usage("--device", cause))?;
    card.ok_or_else(|| {
        let cause = format!("nccl, but --device {} is no card", args.device);
        Error::usage("--transport", cause).hint("tcp or mpi; or --device cuda:N")
    })
}

fn limit(args: &Args) -> Duration {
    Duration::from_secs(args.rank_timeout)
}

#[cfg(feature = "mpi")]
fn mpi(wanted: usize) -> Result<World> {
    let started = ranks::Mpi::start();
    let (rank, count, mpi) = started.map_err(|cause| Error::environment("--transport mpi", cause))?;
    if count != wanted {
        let cause = format!("{wanted}, but MPI has started {count}");
        return Err(Error::usage("--ranks", cause).hint("mpirun -n, or srun --mpi=pmix -n, with the same number"));
    }
    Ok(mpi.world(rank, count))
}

#[cfg(not(feature = "mpi"))]
fn mpi(_: usize) -> Result<World> {
    let cause = "this vcl-train was built without it";
    Err(Error::environment("--transport mpi", cause).hint("cargo build --release --workspace --features vcl-train/mpi"))
}

/// Refuses a world of another size than `--ranks` says: it would train twice, or wait for ever.
fn check_count(args: &Args, get: impl Fn(&str) -> Option<String>) -> Result<()> {
    let Args { ranks, slots, .. } = args;
    if ranks > slots {
        let cause = format!("{ranks} ranks share {slots} slots");
        return Err(Error::usage("--ranks", cause).hint(format!("--slots {ranks} or more; it changes the last bits")));
    }
    match number(&get, "WORLD_SIZE")? {
        Some(size) if size != u64::from(*ranks) => {
            let cause = format!("{ranks}, but WORLD_SIZE says {size}");
            Err(Error::usage("--ranks", cause)
                .hint("give the number of processes that were started, or unset WORLD_SIZE"))
        }
        _ => Ok(()),
    }
}

fn tcp(args: &Args, get: impl Fn(&str) -> Option<String>) -> Result<Meeting> {
    let needed = |name: &str| {
        let missing = || {
            Error::usage(name, format!("is not set, and --ranks {} needs it", args.ranks))
                .hint("RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them")
        };
        get(name).ok_or_else(missing)
    };
    for name in ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"] {
        needed(name)?;
    }
    let rank = number(&get, "RANK")?.unwrap_or_default();
    if rank >= u64::from(args.ranks) {
        return Err(Error::usage("RANK", format!("is {rank}, of {} ranks", args.ranks)));
    }
    let port = number(&get, "MASTER_PORT")?.unwrap_or_default();
    // torchrun's own store listens at the port that it names
    let is_taken = get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|text| text == "True");
    let port = u16::try_from(port + u64::from(is_taken)).ok().filter(|port| *port > 0);
    let meeting = Meeting {
        rank: rank as usize,
        count: args.ranks as usize,
        host: needed("MASTER_ADDR")?,
        port: port.ok_or_else(|| Error::usage("MASTER_PORT", "is no port"))?,
        secret: get(SECRET).unwrap_or_default(),
        limit: limit(args),
    };
    match get(SECRET).is_some() || is_loopback(&meeting) {
        true => Ok(meeting),
        false => {
            let cause = format!("is not set, and others can reach {}", meeting.host);
            Err(Error::usage(SECRET, cause).hint("the same words in the environment of every rank keep strangers out"))
        }
    }
}

/// Whether only this machine reaches the place. A name that is not known yet may be anywhere.
fn is_loopback(meeting: &Meeting) -> bool {
    let found = (meeting.host.as_str(), meeting.port).to_socket_addrs();
    found.is_ok_and(|mut addresses| addresses.all(|address| address.ip().is_loopback()))
}

fn number(get: impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<u64>> {
    let read = |text: String| {
        let number = text.parse();
        number.map_err(|_| Error::usage(name, format!("{text:?} is not a number")))
    };
    get(name).map(read).transpose()
}

/// Refuses ranks that would not compute one and the same thing.
pub fn agree(world: &World, plan: &Plan, is_probe: bool) -> Result<()> {
    let own = json!({"plan": plan.value()?, "probe": is_probe});
    let said = world.gather(own.to_string().as_bytes()).at("ranks")?;
    let read = |text: &Vec<u8>| serde_json::from_slice(text).at("ranks");
    all_the_same(&said.iter().map(read).collect::<Result<Vec<Value>>>()?)
}

fn all_the_same(said: &[Value]) -> Result<()> {
    for (rank, theirs) in said.iter().enumerate() {
        if let Some(difference) = process::plan::difference(&said[0], theirs) {
            let cause = format!("does not do what rank 0 does: {difference}");
            return Err(Error::conflict(format!("rank {rank}"), cause)
                .hint("every rank needs the same arguments, data, version and kind of processor"));
        }
    }
    Ok(())
}

/// The signal that has asked any rank to stop: all stop at one step.
pub fn check(world: &World) -> Result<Option<i32>> {
    let own = process::signals::received().unwrap_or_default();
    let all = world.gather(&own.to_le_bytes()).at("ranks")?;
    let signals = all.iter().filter_map(|bytes| bytes.as_slice().try_into().ok());
    Ok(signals.map(i32::from_le_bytes).find(|&signal| signal != 0))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const USUAL: [(&str, &str); 4] = [
        ("RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    /// The meeting of a run with these flags, in an environment of these variables over the usual ones.
    fn meeting(flags: &[&str], variables: &[(&str, &str)]) -> Result<Meeting> {
        let usual = ["vcl-train", "--model", "m", "--data", "d", "-o", "o"];
        let args = Args::parse_from(usual.iter().chain(flags));
        let get = |name: &str| {
            let set = variables.iter().chain(&USUAL).find(|(key, _)| *key == name);
            set.map(|(_, value)| value.to_string()).filter(|text| !text.is_empty())
        };
        check_count(&args, get)?;
        tcp(&args, get)
    }

    const TWO: &[&str] = &["--slots", "2", "--ranks", "2"];

    #[test]
    fn a_rank_with_another_kernel_is_refused() {
        let with = |kernel: &str| json!({"plan": {"compute": {"dtype": "bf16", "kernel": kernel}}, "probe": false});
        assert!(all_the_same(&[with("avx2"), with("avx2")]).is_ok());
        let refused = all_the_same(&[with("avx2"), with("avx2"), with("amx-bf16")]);
        let cause = refused.unwrap_err().to_string();
        assert!(
            cause.contains("rank 2") && cause.contains("plan.compute.kernel"),
            "{cause}"
        );
    }

    #[test]
    fn a_rank_is_what_torchrun_says() {
        let found = meeting(TWO, &[]).unwrap();
        assert_eq!((found.rank, found.count, found.port), (1, 2, 29500));
        let found = meeting(TWO, &[("TORCHELASTIC_USE_AGENT_STORE", "True")]).unwrap();
        assert_eq!(found.port, 29501, "its own store has the port");
    }

    #[test]
    fn a_world_that_is_not_as_the_flags_say_is_refused() {
        for (flags, variables, words) in [
            (&[][..], &[][..], "1, but WORLD_SIZE says 2"),
            (TWO, &[("WORLD_SIZE", "4")], "2, but WORLD_SIZE says 4"),
            (&["--ranks", "2"], &[], "2 ranks share 1 slots"),
            (TWO, &[("RANK", "2")], "is 2, of 2 ranks"),
            (TWO, &[("RANK", "")], "RANK: is not set"),
            (TWO, &[("WORLD_SIZE", "")], "WORLD_SIZE: is not set"),
            (TWO, &[("MASTER_ADDR", "")], "MASTER_ADDR: is not set"),
            (TWO, &[("MASTER_PORT", "0")], "is no port"),
            (TWO, &[("MASTER_PORT", "x")], "is not a number"),
            (TWO, &[("MASTER_ADDR", "192.0.2.1")], "others can reach 192.0.2.1"),
        ] {
            let cause = meeting(flags, variables)
                .err()
                .map_or(String::new(), |error| error.to_string());
            assert!(cause.contains(words), "{flags:?} {variables:?}: {cause}");
        }
        let variables = [("MASTER_ADDR", "192.0.2.1"), (SECRET, "of this run")];
        assert_eq!(meeting(TWO, &variables).unwrap().secret, "of this run");
    }
}
