
use builtin;
use str;

set edit:completion:arg-completer[kimiq] = {|@words|
    fn spaces {|n|
        builtin:repeat $n ' ' | str:join ''
    }
    fn cand {|text desc|
        edit:complex-candidate $text &display=$text' '(spaces (- 14 (wcswidth $text)))$desc
    }
    var command = 'kimiq'
    for word $words[1..-1] {
        if (str:has-prefix $word '-') {
            break
        }
        set command = $command';'$word
    }
    var completions = [
        &'kimiq'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
            cand run 'Start terminals and attach to them'
            cand attach 'Come back to the terminals of a run'
            cand ps 'List runs and their terminals'
            cand send 'Type text into a terminal'
            cand snapshot 'Print the screen of a terminal as text'
            cand usage 'Show what was consumed and what is left'
            cand health 'Tell whether the host and what it needs are well'
            cand why 'Tell why terminals wait, and until when'
            cand stop 'End a run, or everything'
            cand restore 'Put back a configuration that a killed host left edited'
            cand proxy 'Serve only the proxy, in the foreground'
            cand simulate 'Serve only a simulated upstream, to try things against'
            cand config 'Show settings and where they came from'
            cand doctor 'Look for what is missing or wrong on this machine'
            cand client 'Install the client program'
            cand completions 'Print the completion script of a shell'
        }
        &'kimiq;run'= {
            cand -n 'How many terminals'
            cand --terminals 'How many terminals'
            cand --name 'Name of the run'
            cand --dir 'Working folder; repeat it, and terminals take the folders in turn'
            cand --prompt 'First message, typed into each terminal'
            cand --weight 'Share of the budgets in relation to other terminals, 1 to 100 [default: setting terminals.weight, 1]; 2=3 gives it to terminal 2 alone, repeat for more'
            cand --exec 'Run this program in place of the client'
            cand --kimi 'Command line of the client, such as "node /opt/kimi/main.js"'
            cand --max-steps 'Steps per turn that the client may take'
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -d 'Leave the terminals in the background'
            cand --detach 'Leave the terminals in the background'
            cand --foreground 'Keep everything in this process, for containers and for debugging'
            cand --rewrite-config 'Edit the client''s own configuration, and put it back afterwards'
            cand --demo 'Use the built-in simulated upstream: no key, no network'
            cand -y 'Answer every question with yes, such as the one about installing the client'
            cand --yes 'Answer every question with yes, such as the one about installing the client'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;attach'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;ps'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;send'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --no-enter 'Do not press Enter'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;snapshot'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;usage'= {
            cand --days 'Days to show, today included'
            cand --by 'How to split the totals'
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand --watch 'Print again each time something changed, until interrupted'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;health'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;why'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;stop'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --now 'Do not wait for running requests and polite exits'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;restore'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;proxy'= {
            cand --port 'Port on 127.0.0.1; 0 takes a free one [default: setting proxy.port, 8787]'
            cand --upstream 'Address that the request''s path is appended to [default: setting proxy.upstream]'
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;simulate'= {
            cand --port 'Port on 127.0.0.1; 0 takes a free one'
            cand --time-scale 'Simulated seconds in a real one'
            cand --seed 'Seed of everything drawn by chance'
            cand --limits 'Tokens per minute that pools start with: prompt,uncached,generated'
            cand --grown 'What the limits have grown to by earlier use'
            cand --others 'Share of each limit that another machine on the account uses, such as 0.4'
            cand --shed 'Probability of a request being shed with 503'
            cand --burst-window 'A second window of so many seconds admits one and a half times its share of each limit'
            cand --fault 'A fault with its probability, such as cut=0.1; repeat for more'
            cand --garble 'Garble every answer in one of the ways in which providers garble Kimi models: K01 to K30'
            cand --header-unit 'Unit of the limit headers: minute or second'
            cand --truth 'File that gets one JSON line per request'
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --stale-gateway 'One gateway still tells, and enforces, the start limit for generated tokens'
            cand --fixed-windows 'Count in minutes of the clock rather than in rolling ones'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;config'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
            cand show 'Every setting, its value, and where it came from'
            cand path 'Where the settings file and the folders are'
            cand check 'Tell what is wrong with the settings'
        }
        &'kimiq;config;show'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand --defaults 'Print the documented defaults, to start your own file from'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;config;path'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;config;check'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;doctor'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand --json 'Print JSON'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;client'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
            cand install 'Install Kimi Code and the node it needs into kimiq''s own data folder'
        }
        &'kimiq;client;install'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -y 'Do not ask'
            cand --yes 'Do not ask'
            cand -h 'Print help'
            cand --help 'Print help'
            cand -V 'Print version'
            cand --version 'Print version'
        }
        &'kimiq;completions'= {
            cand --host 'Name of the host, the process that a command is about'
            cand --set 'Give one setting, such as limits.window=60; repeat for more'
            cand -h 'Print help (see more with ''--help'')'
            cand --help 'Print help (see more with ''--help'')'
            cand -V 'Print version'
            cand --version 'Print version'
        }
    ]
    $completions[$command]
}
