//! `kimiq simulate`: only the simulated upstream.

use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::cli::args;
use crate::cli::block_on;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::simulator::Fault;
use crate::simulator::Garble;
use crate::simulator::Options;
use crate::simulator::Simulator;
use crate::usage::Dimensions;

pub(crate) fn run(context: &Context, args: args::Simulate) -> Outcome {
    let options = options(&args)?;
    block_on(async {
        let tracker = TaskTracker::new();
        let simulator = Simulator::start(options, &tracker).await.map_err(|error| {
            Failure::from(error).hint("another program may have the port; choose one with --port")
        })?;
        let base = simulator.base_url();
        context
            .output
            .line(format!("simulated upstream at {base}; Ctrl-C ends it"))?;
        tokio::signal::ctrl_c().await?;
        simulator.shutdown();
        Ok(())
    })
}

fn options(args: &args::Simulate) -> Result<Options, Failure> {
    let wrong = |what: String| Failure::new(Kind::Usage, what);
    let mut options = Options {
        port: args.port,
        seed: args.seed,
        truth: args.truth.clone(),
        ..Options::default()
    };
    if !(args.time_scale.is_finite() && args.time_scale > 0.0) {
        return Err(wrong("--time-scale takes a number above 0".to_owned()));
    }
    options.time_scale = args.time_scale;
    if let Some(limits) = args.limits {
        options.start = Dimensions::from_array(limits);
    }
    options.grown = args.grown.map(Dimensions::from_array);
    for (name, share) in [("others", args.others), ("shed", args.shed)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(wrong(format!("--{name} takes a number between 0 and 1")));
        }
    }
    (options.others, options.shed) = (args.others, args.shed);
    options.stale_gateway = args.stale_gateway;
    let seconds = args.burst_window.map(u64::from);
    options.burst_window = seconds.map(Duration::from_secs);
    options.fixed_windows = args.fixed_windows;
    if let Some(unit) = &args.header_unit {
        options.header_unit = unit
            .parse()
            .map_err(|error| Failure::from_error(Kind::Usage, &error))?;
    }
    if let Some(way) = &args.garble {
        let way: Garble = way
            .parse()
            .map_err(|error| Failure::from_error(Kind::Usage, &error))?;
        options.faults.push((Fault::Garbled(way), 1.0));
    }
    for given in &args.faults {
        let (name, chance) = given
            .rsplit_once('=')
            .ok_or_else(|| wrong(format!("`{given}` is not NAME=P, such as cut=0.1")))?;
        let fault: Fault = name
            .parse()
            .map_err(|error| Failure::from_error(Kind::Usage, &error))?;
        let chance = chance
            .parse()
            .ok()
            .filter(|chance| (0.0..=1.0).contains(chance));
        let chance = chance
            .ok_or_else(|| wrong(format!("the chance in `{given}` is not between 0 and 1")))?;
        options.faults.push((fault, chance));
    }
    Ok(options)
}
