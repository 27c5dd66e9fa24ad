#!/bin/sh
# Man pages and completions: they know every option, and the programs that read them take them.
# Usage: tests/help.sh ITERA SOURCE_FOLDER
set -eu
source=$(realpath "$2")
. "$(dirname "$0")/command.sh"

"$source/tools/make-manuals" "$itera" made
commands=$("$itera" --help | sed -n 's/^  \([a-z][a-z]*\)  *[a-z].*/\1/p')
[ "$(echo "$commands" | wc -l)" -ge 16 ] || die "few commands: $commands"
for command in $commands; do
    page=made/man/itera-$command.1
    for option in $("$itera" "$command" --help | sed -n 's/^ *\(-., \)\{0,1\}--\([a-z0-9-]*\).*/\2/p'); do
        name=$(echo "$option" | sed 's/-/\\\\-/g')
        grep -q "\\\\-\\\\-$name\\\\fR" "$page" || fail "$page has no --$option"
        grep -q -e "--$option\b" made/itera || fail "bash does not know $command --$option"
        grep -q -e "[')*]--$option=\?\[" made/_itera || fail "zsh does not know $command --$option"
        grep -q "__itera_command $command' -l $option\b" made/itera.fish || fail "fish does not know $command --$option"
    done
    grep -q "itera.\-$command" made/man/itera.1 || fail "itera(1) lacks $command"
done

# completes WORDS... WANTED: what bash offers for the last of the words.
bash -n made/itera || fail "bash reads no completions"
completes() {
    for wanted; do :; done
    # shellcheck disable=SC2016
    bash -c '. made/itera; n=$(($# - 1)); COMP_WORDS=("${@:1:$n}"); COMP_CWORD=$((n - 1))
             COMP_WORDBREAKS=" =:"; _itera
             printf "%s\n" "${COMPREPLY[@]}"' bash "$@" >offered
    grep -qx -e "$wanted" offered || fail "$*: bash offers $(cat offered)"
}
echo text >own.txt
completes itera tr train
completes itera train --pres --preset
completes itera train --preset mic micro
completes itera quantize --to q q4
completes itera eval own own.txt
completes itera train --out mad made
completes itera bench --device vul vulkan:0
# In the pieces into which bash cuts a line; what is offered replaces the last.
completes itera bench --device vulkan : 0
completes itera bench --device vulkan : 0 0
completes itera quantize --to = q4
completes itera quantize --to = q q4
# Words are not marked as the folders that have their names.
# shellcheck disable=SC2016
bash -c '. made/itera; complete -p itera' | grep -q filenames && fail "bash takes commands for files"

if command -v zsh >/dev/null; then
    zsh -n made/_itera || fail "zsh reads no completions"
    # On a terminal, as there is no other way; what is asked for appears, or time is up.
    cat >complete.zsh <<'END'
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1=; fpath=($PWD/made \$fpath); autoload -Uz compinit; compinit -u -D; print rea''dy"
zpty -r shell text '*ready*' && zpty -w -n shell $1$'\t' && zpty -r shell text "*$2*"
END
    # Only what is added to a word is sure to appear in one piece.
    for pair in 'itera tr=ain' 'itera bench --device vul=kan*:0' 'itera bench -d vul=kan*:0' \
        'itera train --tokeni=zer' 'itera eval ow=n.txt'; do
        timeout 20 zsh -f complete.zsh "${pair%=*}" "${pair#*=}" || fail "zsh completes no '${pair%=*}'"
    done
    timeout 20 zsh -f complete.zsh 'itera quantize --to=mi' 'xed' || fail "zsh completes no --to="
else
    echo "skipped: zsh is not here to read its completions"
fi
if command -v fish >/dev/null; then
    fish -n made/itera.fish || fail "fish reads no completions"
    # offers LINE WORD
    offers() {
        HOME=$PWD fish --no-config -c ". made/itera.fish; complete -C '$1'" >offered
        grep -q -e "^$2" offered
    }
    offers 'itera tr' train || fail "fish completes no command"
    offers 'itera quantize --to ' q4 || fail "fish completes no choice"
    offers 'itera bench --device vul' vulkan:0 || fail "fish completes no device"
    offers 'itera train --pre' --preset || fail "fish completes no option"
    ! offers 'itera bench train --weight' --weight-decay || fail "fish takes bench train for train"
else
    echo "skipped: fish is not here to read its completions"
fi
if command -v mandoc >/dev/null; then
    # They have no date, as the same sources make the same pages.
    mandoc -Tlint -W warning made/man/*.1 | grep -v 'missing date' >log || true
    [ ! -s log ] || fail "mandoc finds fault"
else
    echo "skipped: mandoc is not here to read the man pages"
fi
expect 2 'bash, zsh, fish' help --completion tcsh
[ $failed -eq 0 ] && echo "ok: man pages and completions"
