//! The one definition of the command line; help, completions and man pages all come from it.
//!
//! Only shapes: no file is touched and nothing is started here.

use std::path::PathBuf;

use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap::ValueHint;

/// Exit codes, as `--help` and the man page tell them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something failed
  2  the command line is wrong
  3  a setting is wrong
  4  no host is running, or it has no such run or terminal
  5  the host is up, but something it needs is not well (health, doctor)
  6  the client, or the program of --exec, is missing or could not be started";

/// Variables and files, as the man page tells them.
const PLACES: &str = "\
Environment:
  KIMIQ_HOME       one folder for settings, state and data
  KIMIQ_CONFIG     the settings file
  KIMIQ_STATE_DIR  instance files, logs, undo journals, totals
  KIMIQ_DATA_DIR   the client that kimiq installed
  KIMIQ_A_B        any setting a.b; FIREWORKS_PROXY_* of the first proxy work, too
  NO_COLOR         no colours

`kimiq config path` tells the folders, `kimiq config show` every setting.";

/// Many Kimi coding terminals on one API key.
#[derive(Debug, Parser)]
#[command(name = "kimiq", version, propagate_version = true, after_long_help = format!("{EXIT_CODES}\n\n{PLACES}"))]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Name of the host, the process that a command is about
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Give one setting, such as limits.window=60; repeat for more
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start terminals and attach to them
    Run(Box<Run>),
    /// Come back to the terminals of a run
    Attach(Attach),
    /// List runs and their terminals
    Ps(Listing),
    /// Type text into a terminal
    Send(Send),
    /// Print the screen of a terminal as text
    Snapshot(Snapshot),
    /// Show what was consumed and what is left
    Usage(Usage),
    /// Tell whether the host and what it needs are well
    Health(Listing),
    /// Tell why terminals wait, and until when
    Why(Why),
    /// End a run, or everything
    Stop(Stop),
    /// Put back a configuration that a killed host left edited
    Restore(Restore),
    /// Serve only the proxy, in the foreground
    Proxy(Proxy),
    /// Serve only a simulated upstream, to try things against
    Simulate(Simulate),
    /// Show settings and where they came from
    Config(Config),
    /// Look for what is missing or wrong on this machine
    Doctor(Listing),
    /// Install the client program
    Client(Client),
    /// Print the completion script of a shell
    Completions(Completions),
    /// The background host
    #[command(hide = true)]
    Host(Host),
    /// The line in the footer of a client
    #[command(hide = true)]
    StatusLine,
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(Man),
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// How many terminals
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) terminals: Option<u16>,
    /// Name of the run
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Working folder; repeat it, and terminals take the folders in turn
    #[arg(long = "dir", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dirs: Vec<PathBuf>,
    /// First message, typed into each terminal
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,
    /// Share of the budgets in relation to other terminals, 1 to 100 [default: setting terminals.weight, 1]; 2=3 gives it
    /// to terminal 2 alone, repeat for more
    #[arg(long = "weight", value_name = "[N=]WEIGHT", value_parser = weight)]
    pub(crate) weights: Vec<(Option<u16>, u32)>,
    /// Leave the terminals in the background
    #[arg(short, long, conflicts_with = "foreground")]
    pub(crate) detach: bool,
    /// Keep everything in this process, for containers and for debugging
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Edit the client's own configuration, and put it back afterwards
    #[arg(long)]
    pub(crate) rewrite_config: bool,
    /// Use the built-in simulated upstream: no key, no network
    #[arg(long)]
    pub(crate) demo: bool,
    /// Run this program in place of the client
    #[arg(long, value_name = "PROGRAM", value_hint = ValueHint::CommandString, conflicts_with_all = ["kimi", "rewrite_config"])]
    pub(crate) exec: Option<String>,
    /// Command line of the client, such as "node /opt/kimi/main.js"
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString)]
    pub(crate) kimi: Option<String>,
    /// Steps per turn that the client may take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_steps: Option<u32>,
    /// Answer every question with yes, such as the one about installing the client
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Arguments of the client
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Attach {
    /// The run; without it, the only one or the newest
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Listing {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Send {
    /// The terminal, such as work:2, or 2 where one run lives
    #[arg(value_name = "[RUN:]N")]
    pub(crate) terminal: String,
    /// The text; kimiq presses Enter after it
    #[arg(value_name = "TEXT", required = true, allow_hyphen_values = true)]
    pub(crate) text: Vec<String>,
    /// Do not press Enter
    #[arg(long)]
    pub(crate) no_enter: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    /// The terminal, such as work:2, or 2 where one run lives
    #[arg(value_name = "[RUN:]N")]
    pub(crate) terminal: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How `kimiq usage` splits the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// One line per terminal
    Terminal,
    /// One line per model
    Model,
    /// One line per day
    Day,
}

#[derive(Args, Debug)]
pub(crate) struct Usage {
    /// Days to show, today included
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3660))]
    pub(crate) days: u16,
    /// How to split the totals
    #[arg(long, value_enum, default_value_t = By::Model)]
    pub(crate) by: By,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print again each time something changed, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Why {
    /// The terminal, such as work:2, or 2 where one run lives; without it, all that wait
    #[arg(value_name = "[RUN:]N")]
    pub(crate) terminal: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Stop {
    /// The run; without it everything ends: all runs and all hosts, demos and `kimiq proxy` included (--host names one)
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Do not wait for running requests and polite exits
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Proxy {
    /// Port on 127.0.0.1; 0 takes a free one [default: setting proxy.port, 8787]
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Address that the request's path is appended to [default: setting proxy.upstream]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) upstream: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Simulate {
    /// Port on 127.0.0.1; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8788)]
    pub(crate) port: u16,
    /// Simulated seconds in a real one
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub(crate) time_scale: f64,
    /// Seed of everything drawn by chance
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Tokens per minute that pools start with: prompt,uncached,generated
    #[arg(long, value_name = "P,U,G", value_parser = three_limits)]
    pub(crate) limits: Option<[u64; 3]>,
    /// What the limits have grown to by earlier use
    #[arg(long, value_name = "P,U,G", value_parser = three_limits)]
    pub(crate) grown: Option<[u64; 3]>,
    /// Share of each limit that another machine on the account uses, such as 0.4
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub(crate) others: f64,
    /// Probability of a request being shed with 503
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) shed: f64,
    /// One gateway still tells, and enforces, the start limit for generated tokens
    #[arg(long)]
    pub(crate) stale_gateway: bool,
    /// A second window of so many seconds admits one and a half times its share of each limit
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) burst_window: Option<u32>,
    /// Count in minutes of the clock rather than in rolling ones
    #[arg(long)]
    pub(crate) fixed_windows: bool,
    /// A fault with its probability, such as cut=0.1; repeat for more
    #[arg(long = "fault", value_name = "NAME=P")]
    pub(crate) faults: Vec<String>,
    /// Garble every answer in one of the ways in which providers garble Kimi models: K01 to K30
    #[arg(long, value_name = "KNN")]
    pub(crate) garble: Option<String>,
    /// Unit of the limit headers: minute or second
    #[arg(long, value_name = "UNIT")]
    pub(crate) header_unit: Option<String>,
    /// File that gets one JSON line per request
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) truth: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) what: Option<ConfigVerb>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Every setting, its value, and where it came from
    Show {
        /// Print JSON
        #[arg(long, conflicts_with = "defaults")]
        json: bool,
        /// Print the documented defaults, to start your own file from
        #[arg(long)]
        defaults: bool,
    },
    /// Where the settings file and the folders are
    Path {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Tell what is wrong with the settings
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Client {
    #[command(subcommand)]
    pub(crate) what: ClientVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientVerb {
    /// Install Kimi Code and the node it needs into kimiq's own data folder
    Install {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Shells that kimiq has completions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// `PowerShell`
    Powershell,
    /// elvish
    Elvish,
}

#[derive(Args, Debug)]
pub(crate) struct Host {
    /// Use the simulated upstream
    #[arg(long)]
    pub(crate) demo: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The folder
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

fn weight(given: &str) -> Result<(Option<u16>, u32), String> {
    let (number, weight) = match given.split_once('=') {
        Some((number, weight)) => (number.parse().map(Some), weight),
        None => (Ok(None), given),
    };
    match (number, weight.parse()) {
        (Ok(number), Ok(weight @ 1..=100)) if number.is_none_or(|number| number > 0) => {
            Ok((number, weight))
        }
        _ => Err("a weight from 1 to 100, such as 3, or 2=3 for terminal 2 alone".to_owned()),
    }
}

fn three_limits(given: &str) -> Result<[u64; 3], String> {
    let numbers: Result<Vec<u64>, _> = given.split(',').map(|one| one.trim().parse()).collect();
    numbers
        .ok()
        .filter(|numbers| !numbers.contains(&0))
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| {
            "three whole numbers above 0 with commas between, such as 40000,25000,500".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_belongs_to_the_client() {
        let cli = Cli::parse_from([
            "kimiq", "run", "-n", "6", "--set", "a=b", "--", "--yolo", "-n",
        ]);
        let Verb::Run(run) = cli.verb else {
            panic!("not run")
        };
        assert_eq!(run.terminals, Some(6));
        assert_eq!(run.args, ["--yolo", "-n"]);
        assert_eq!(cli.common.settings, ["a=b"]);
    }

    #[test]
    fn limits_are_three_numbers() {
        let parsed = |given| Cli::try_parse_from(["kimiq", "simulate", "--limits", given]);
        let Ok(Cli {
            verb: Verb::Simulate(simulate),
            ..
        }) = parsed("40000,25000,500")
        else {
            panic!("not taken")
        };
        assert_eq!(simulate.limits, Some([40_000, 25_000, 500]));
        for given in ["1,2", "1,2,3,4", "a,b,c", "0,0,0", "1,0,1", ""] {
            assert!(parsed(given).is_err(), "{given}");
        }
    }

    #[test]
    fn weights_are_for_all_or_for_one() {
        let parsed = |given: &[&str]| {
            let args = ["kimiq", "run"].iter().chain(given);
            Cli::try_parse_from(args).map(|cli| match cli.verb {
                Verb::Run(run) => run.weights,
                _ => Vec::new(),
            })
        };
        let given = ["--weight", "2", "--weight", "1=3"];
        assert_eq!(parsed(&given).unwrap(), [(None, 2), (Some(1), 3)]);
        for given in ["0", "101", "x", "1=", "=2", "0=2", "1=0", "-1"] {
            assert!(parsed(&["--weight", given]).is_err(), "{given}");
        }
    }

    #[test]
    fn impossible_counts_are_refused() {
        for given in ["0", "100", "many"] {
            assert!(
                Cli::try_parse_from(["kimiq", "run", "-n", given]).is_err(),
                "{given}"
            );
        }
    }
}
