package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print what makes a shell complete mediafs",
		UsageText: "mediafs completion bash|zsh",
		Description: "Examples:\n\n" +
			"  mediafs completion bash > ~/.local/share/bash-completion/completions/mediafs\n" +
			"  mediafs completion zsh > /usr/local/share/zsh/site-functions/_mediafs",
		BashComplete: func(c *cli.Context) { _, _ = io.WriteString(c.App.Writer, "bash\nzsh\n") },
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "SHELL")
			if err != nil {
				return err
			}
			script, ok := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}[args[0]]
			if !ok {
				return usageFailure(c, fmt.Errorf("there is nothing for the shell %q, only for bash and zsh", args[0]))
			}
			_, err = io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

// The program answers with words for what comes next. Where there are none, the shell completes names of files.
// Without the last word, unless that begins a flag, as the library wants it.
const bashCompletion = `# completion of mediafs for bash
_mediafs() {
	local current=${COMP_WORDS[COMP_CWORD]}
	local words=("${COMP_WORDS[@]:0:COMP_CWORD}")
	[[ $current == -* ]] && words+=("$current")
	mapfile -t COMPREPLY < <(compgen -W "$("${words[@]}" ` + completionFlag + ` 2>/dev/null)" -- "$current")
}
complete -o bashdefault -o default -F _mediafs mediafs
`

const zshCompletion = `#compdef mediafs
_mediafs() {
	local -a line answers
	line=("${(@)words[1,CURRENT-1]}")
	[[ ${words[CURRENT]} == -* ]] && line+=("${words[CURRENT]}")
	answers=("${(@f)$("${line[@]}" ` + completionFlag + ` 2>/dev/null)}")
	if [[ -n ${answers[1]} ]]; then
		compadd -- "${answers[@]}"
	else
		_files
	fi
}
if [[ ${funcstack[1]} == _mediafs ]]; then
	_mediafs "$@"
else
	compdef _mediafs mediafs
fi
`
