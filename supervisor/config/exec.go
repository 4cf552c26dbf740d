package config

import "time"

// execPlugin is the plugin that is built in: scripts.
const execPlugin = "exec"

// checkExec holds the settings of exec to what it can do. What other plugins
// are told only they can judge.
func checkExec(part, t *table) {
	commands := []string{"promote", "demote", "check", "follow", "fence"}
	some := false
	for _, key := range commands {
		argv, at := t.texts(key)
		some = some || t.has(key)
		v := t.keys[key]
		switch {
		case v == nil:
		case isEmptyArray(v):
			t.mistake(key, `is empty; write the program's path and its arguments, like ["/usr/local/bin/hook", "up"]`)
		case len(argv) > 0:
			if err := absolute(argv[0]); err != nil {
				t.wrong.add(at[0], t.path+key, "the program %v", err)
			}
			for i, arg := range argv[1:] {
				if containsNUL(arg) {
					t.wrong.add(at[i+1], t.path+key, "an argument has a NUL byte in it; programs cannot be given that")
				}
			}
		}
	}
	var user string
	readUser(t, &user)
	var bound time.Duration
	t.duration("forced_bound", &bound, time.Millisecond, maxAct)
	unknown := "unfit"
	oneOf(t, "unknown", &unknown, "unfit", "warning")
	if t.has("unknown") && !t.has("check") && some {
		t.mistake("unknown", "has no effect, as there is no check; add the program there, or remove this")
	}
	if !some {
		part.mistake("config", `names no program, so this plugin would do nothing; set promote and demote, check, or fence`)
	}
	if t.has("promote") && !t.has("demote") {
		t.mistake("promote", "needs demote beside it: what was started here must be stopped, and seen to be stopped, before another node may start it")
	}
	// A policy for something that is never done is a slip, and a silent one.
	for _, policy := range []string{"promote", "demote", "fence", "check"} {
		if part.has(policy) && !t.has(policy) && some {
			part.mistake(policy, "has no effect, as config has no %s; add the program there, or remove this", policy)
		}
	}
	t.close()
}

func containsNUL(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return true
		}
	}
	return false
}
