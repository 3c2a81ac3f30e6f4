
using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'kimiq' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'kimiq'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'kimiq' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('run', 'run', [CompletionResultType]::ParameterValue, 'Start terminals and attach to them')
            [CompletionResult]::new('attach', 'attach', [CompletionResultType]::ParameterValue, 'Come back to the terminals of a run')
            [CompletionResult]::new('ps', 'ps', [CompletionResultType]::ParameterValue, 'List runs and their terminals')
            [CompletionResult]::new('send', 'send', [CompletionResultType]::ParameterValue, 'Type text into a terminal')
            [CompletionResult]::new('snapshot', 'snapshot', [CompletionResultType]::ParameterValue, 'Print the screen of a terminal as text')
            [CompletionResult]::new('usage', 'usage', [CompletionResultType]::ParameterValue, 'Show what was consumed and what is left')
            [CompletionResult]::new('health', 'health', [CompletionResultType]::ParameterValue, 'Tell whether the host and what it needs are well')
            [CompletionResult]::new('why', 'why', [CompletionResultType]::ParameterValue, 'Tell why terminals wait, and until when')
            [CompletionResult]::new('stop', 'stop', [CompletionResultType]::ParameterValue, 'End a run, or everything')
            [CompletionResult]::new('restore', 'restore', [CompletionResultType]::ParameterValue, 'Put back a configuration that a killed host left edited')
            [CompletionResult]::new('proxy', 'proxy', [CompletionResultType]::ParameterValue, 'Serve only the proxy, in the foreground')
            [CompletionResult]::new('simulate', 'simulate', [CompletionResultType]::ParameterValue, 'Serve only a simulated upstream, to try things against')
            [CompletionResult]::new('config', 'config', [CompletionResultType]::ParameterValue, 'Show settings and where they came from')
            [CompletionResult]::new('doctor', 'doctor', [CompletionResultType]::ParameterValue, 'Look for what is missing or wrong on this machine')
            [CompletionResult]::new('client', 'client', [CompletionResultType]::ParameterValue, 'Install the client program')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print the completion script of a shell')
            break
        }
        'kimiq;run' {
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'How many terminals')
            [CompletionResult]::new('--terminals', '--terminals', [CompletionResultType]::ParameterName, 'How many terminals')
            [CompletionResult]::new('--name', '--name', [CompletionResultType]::ParameterName, 'Name of the run')
            [CompletionResult]::new('--dir', '--dir', [CompletionResultType]::ParameterName, 'Working folder; repeat it, and terminals take the folders in turn')
            [CompletionResult]::new('--prompt', '--prompt', [CompletionResultType]::ParameterName, 'First message, typed into each terminal')
            [CompletionResult]::new('--weight', '--weight', [CompletionResultType]::ParameterName, 'Share of the budgets in relation to other terminals, 1 to 100 [default: setting terminals.weight, 1]; 2=3 gives it to terminal 2 alone, repeat for more')
            [CompletionResult]::new('--exec', '--exec', [CompletionResultType]::ParameterName, 'Run this program in place of the client')
            [CompletionResult]::new('--kimi', '--kimi', [CompletionResultType]::ParameterName, 'Command line of the client, such as "node /opt/kimi/main.js"')
            [CompletionResult]::new('--max-steps', '--max-steps', [CompletionResultType]::ParameterName, 'Steps per turn that the client may take')
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-d', '-d', [CompletionResultType]::ParameterName, 'Leave the terminals in the background')
            [CompletionResult]::new('--detach', '--detach', [CompletionResultType]::ParameterName, 'Leave the terminals in the background')
            [CompletionResult]::new('--foreground', '--foreground', [CompletionResultType]::ParameterName, 'Keep everything in this process, for containers and for debugging')
            [CompletionResult]::new('--rewrite-config', '--rewrite-config', [CompletionResultType]::ParameterName, 'Edit the client''s own configuration, and put it back afterwards')
            [CompletionResult]::new('--demo', '--demo', [CompletionResultType]::ParameterName, 'Use the built-in simulated upstream: no key, no network')
            [CompletionResult]::new('-y', '-y', [CompletionResultType]::ParameterName, 'Answer every question with yes, such as the one about installing the client')
            [CompletionResult]::new('--yes', '--yes', [CompletionResultType]::ParameterName, 'Answer every question with yes, such as the one about installing the client')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;attach' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;ps' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;send' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--no-enter', '--no-enter', [CompletionResultType]::ParameterName, 'Do not press Enter')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;snapshot' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;usage' {
            [CompletionResult]::new('--days', '--days', [CompletionResultType]::ParameterName, 'Days to show, today included')
            [CompletionResult]::new('--by', '--by', [CompletionResultType]::ParameterName, 'How to split the totals')
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('--watch', '--watch', [CompletionResultType]::ParameterName, 'Print again each time something changed, until interrupted')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;health' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;why' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;stop' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--now', '--now', [CompletionResultType]::ParameterName, 'Do not wait for running requests and polite exits')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;restore' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;proxy' {
            [CompletionResult]::new('--port', '--port', [CompletionResultType]::ParameterName, 'Port on 127.0.0.1; 0 takes a free one [default: setting proxy.port, 8787]')
            [CompletionResult]::new('--upstream', '--upstream', [CompletionResultType]::ParameterName, 'Address that the request''s path is appended to [default: setting proxy.upstream]')
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;simulate' {
            [CompletionResult]::new('--port', '--port', [CompletionResultType]::ParameterName, 'Port on 127.0.0.1; 0 takes a free one')
            [CompletionResult]::new('--time-scale', '--time-scale', [CompletionResultType]::ParameterName, 'Simulated seconds in a real one')
            [CompletionResult]::new('--seed', '--seed', [CompletionResultType]::ParameterName, 'Seed of everything drawn by chance')
            [CompletionResult]::new('--limits', '--limits', [CompletionResultType]::ParameterName, 'Tokens per minute that pools start with: prompt,uncached,generated')
            [CompletionResult]::new('--grown', '--grown', [CompletionResultType]::ParameterName, 'What the limits have grown to by earlier use')
            [CompletionResult]::new('--others', '--others', [CompletionResultType]::ParameterName, 'Share of each limit that another machine on the account uses, such as 0.4')
            [CompletionResult]::new('--shed', '--shed', [CompletionResultType]::ParameterName, 'Probability of a request being shed with 503')
            [CompletionResult]::new('--burst-window', '--burst-window', [CompletionResultType]::ParameterName, 'A second window of so many seconds admits one and a half times its share of each limit')
            [CompletionResult]::new('--fault', '--fault', [CompletionResultType]::ParameterName, 'A fault with its probability, such as cut=0.1; repeat for more')
            [CompletionResult]::new('--garble', '--garble', [CompletionResultType]::ParameterName, 'Garble every answer in one of the ways in which providers garble Kimi models: K01 to K30')
            [CompletionResult]::new('--header-unit', '--header-unit', [CompletionResultType]::ParameterName, 'Unit of the limit headers: minute or second')
            [CompletionResult]::new('--truth', '--truth', [CompletionResultType]::ParameterName, 'File that gets one JSON line per request')
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--stale-gateway', '--stale-gateway', [CompletionResultType]::ParameterName, 'One gateway still tells, and enforces, the start limit for generated tokens')
            [CompletionResult]::new('--fixed-windows', '--fixed-windows', [CompletionResultType]::ParameterName, 'Count in minutes of the clock rather than in rolling ones')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;config' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('show', 'show', [CompletionResultType]::ParameterValue, 'Every setting, its value, and where it came from')
            [CompletionResult]::new('path', 'path', [CompletionResultType]::ParameterValue, 'Where the settings file and the folders are')
            [CompletionResult]::new('check', 'check', [CompletionResultType]::ParameterValue, 'Tell what is wrong with the settings')
            break
        }
        'kimiq;config;show' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('--defaults', '--defaults', [CompletionResultType]::ParameterName, 'Print the documented defaults, to start your own file from')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;config;path' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;config;check' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;doctor' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('--json', '--json', [CompletionResultType]::ParameterName, 'Print JSON')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;client' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('install', 'install', [CompletionResultType]::ParameterValue, 'Install Kimi Code and the node it needs into kimiq''s own data folder')
            break
        }
        'kimiq;client;install' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-y', '-y', [CompletionResultType]::ParameterName, 'Do not ask')
            [CompletionResult]::new('--yes', '--yes', [CompletionResultType]::ParameterName, 'Do not ask')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
        'kimiq;completions' {
            [CompletionResult]::new('--host', '--host', [CompletionResultType]::ParameterName, 'Name of the host, the process that a command is about')
            [CompletionResult]::new('--set', '--set', [CompletionResultType]::ParameterName, 'Give one setting, such as limits.window=60; repeat for more')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help (see more with ''--help'')')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
