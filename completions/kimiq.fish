# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kimiq_global_optspecs
    string join \n host= set= h/help V/version
end

function __fish_kimiq_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kimiq_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kimiq_using_subcommand
    set -l cmd (__fish_kimiq_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kimiq -n "__fish_kimiq_needs_command" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_needs_command" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_needs_command" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_needs_command" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "run" -d 'Start terminals and attach to them'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "attach" -d 'Come back to the terminals of a run'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "ps" -d 'List runs and their terminals'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "send" -d 'Type text into a terminal'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "snapshot" -d 'Print the screen of a terminal as text'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "usage" -d 'Show what was consumed and what is left'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "health" -d 'Tell whether the host and what it needs are well'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "why" -d 'Tell why terminals wait, and until when'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "stop" -d 'End a run, or everything'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "restore" -d 'Put back a configuration that a killed host left edited'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "proxy" -d 'Serve only the proxy, in the foreground'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "simulate" -d 'Serve only a simulated upstream, to try things against'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "config" -d 'Show settings and where they came from'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "doctor" -d 'Look for what is missing or wrong on this machine'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "client" -d 'Install the client program'
complete -c kimiq -n "__fish_kimiq_needs_command" -f -a "completions" -d 'Print the completion script of a shell'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -s n -l terminals -d 'How many terminals' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l name -d 'Name of the run' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l dir -d 'Working folder; repeat it, and terminals take the folders in turn' -r -f -a "(__fish_complete_directories)"
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l prompt -d 'First message, typed into each terminal' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l weight -d 'Share of the budgets in relation to other terminals, 1 to 100 [default: setting terminals.weight, 1]; 2=3 gives it to terminal 2 alone, repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l exec -d 'Run this program in place of the client' -r -f -a "(__fish_complete_command)"
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l kimi -d 'Command line of the client, such as "node /opt/kimi/main.js"' -r -f -a "(__fish_complete_command)"
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l max-steps -d 'Steps per turn that the client may take' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -s d -l detach -d 'Leave the terminals in the background'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l foreground -d 'Keep everything in this process, for containers and for debugging'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l rewrite-config -d 'Edit the client\'s own configuration, and put it back afterwards'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -l demo -d 'Use the built-in simulated upstream: no key, no network'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -s y -l yes -d 'Answer every question with yes, such as the one about installing the client'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand run" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand attach" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand attach" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand attach" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand attach" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand ps" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand ps" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand ps" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand ps" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand ps" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand send" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand send" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand send" -l no-enter -d 'Do not press Enter'
complete -c kimiq -n "__fish_kimiq_using_subcommand send" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand send" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand snapshot" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand snapshot" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand snapshot" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand snapshot" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand snapshot" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l days -d 'Days to show, today included' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l by -d 'How to split the totals' -r -f -a "terminal\t'One line per terminal'
model\t'One line per model'
day\t'One line per day'"
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -l watch -d 'Print again each time something changed, until interrupted'
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kimiq -n "__fish_kimiq_using_subcommand usage" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand health" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand health" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand health" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand health" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand health" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand why" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand why" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand why" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand why" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand why" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand stop" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand stop" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand stop" -l now -d 'Do not wait for running requests and polite exits'
complete -c kimiq -n "__fish_kimiq_using_subcommand stop" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand stop" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand restore" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand restore" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand restore" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand restore" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand restore" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -l port -d 'Port on 127.0.0.1; 0 takes a free one [default: setting proxy.port, 8787]' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -l upstream -d 'Address that the request\'s path is appended to [default: setting proxy.upstream]' -r -f
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand proxy" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l port -d 'Port on 127.0.0.1; 0 takes a free one' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l time-scale -d 'Simulated seconds in a real one' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l seed -d 'Seed of everything drawn by chance' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l limits -d 'Tokens per minute that pools start with: prompt,uncached,generated' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l grown -d 'What the limits have grown to by earlier use' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l others -d 'Share of each limit that another machine on the account uses, such as 0.4' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l shed -d 'Probability of a request being shed with 503' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l burst-window -d 'A second window of so many seconds admits one and a half times its share of each limit' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l fault -d 'A fault with its probability, such as cut=0.1; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l garble -d 'Garble every answer in one of the ways in which providers garble Kimi models: K01 to K30' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l header-unit -d 'Unit of the limit headers: minute or second' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l truth -d 'File that gets one JSON line per request' -r -F
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l stale-gateway -d 'One gateway still tells, and enforces, the start limit for generated tokens'
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -l fixed-windows -d 'Count in minutes of the clock rather than in rolling ones'
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand simulate" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -f -a "show" -d 'Every setting, its value, and where it came from'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -f -a "path" -d 'Where the settings file and the folders are'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and not __fish_seen_subcommand_from show path check" -f -a "check" -d 'Tell what is wrong with the settings'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -l defaults -d 'Print the documented defaults, to start your own file from'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from show" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from path" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from path" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from path" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from path" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from path" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from check" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from check" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from check" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand config; and __fish_seen_subcommand_from check" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand doctor" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand doctor" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand doctor" -l json -d 'Print JSON'
complete -c kimiq -n "__fish_kimiq_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and not __fish_seen_subcommand_from install" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and not __fish_seen_subcommand_from install" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and not __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and not __fish_seen_subcommand_from install" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and not __fish_seen_subcommand_from install" -f -a "install" -d 'Install Kimi Code and the node it needs into kimiq\'s own data folder'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and __fish_seen_subcommand_from install" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and __fish_seen_subcommand_from install" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and __fish_seen_subcommand_from install" -s y -l yes -d 'Do not ask'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c kimiq -n "__fish_kimiq_using_subcommand client; and __fish_seen_subcommand_from install" -s V -l version -d 'Print version'
complete -c kimiq -n "__fish_kimiq_using_subcommand completions" -l host -d 'Name of the host, the process that a command is about' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand completions" -l set -d 'Give one setting, such as limits.window=60; repeat for more' -r
complete -c kimiq -n "__fish_kimiq_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c kimiq -n "__fish_kimiq_using_subcommand completions" -s V -l version -d 'Print version'
