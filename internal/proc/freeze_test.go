//go:build linux

package proc

import (
	"syscall"
	"testing"
)

// states are those of the processes.
func states(all []process) string {
	var b []byte
	for _, p := range all {
		if s, ok := p.there(); ok {
			b = append(b, s.state)
		}
	}
	return string(b)
}

func TestFreeze(t *testing.T) {
	k := prepare(t, node).underTini().run()
	k.up()
	k.wrote("ready")
	if err := k.Freeze(); err != nil {
		t.Fatal(err)
	}
	k.want(Frozen)
	if s := states(k.family()); s != "TTTTT" {
		t.Errorf("states are %s, want all stopped", s)
	}
	if err := k.Thaw(); err != nil {
		t.Fatal(err)
	}
	k.want(Running)
	eventually(t, "all go on", func() bool { return states(k.family()) == "SSSSS" })
}

// Nobody escapes who is being started meanwhile.
func TestFreezeOfWhatForks(t *testing.T) {
	k := prepare(t, `while :; do (setsid sh -c "sleep 0.01; exec sleep 0.01" &) ; : >>ready; done`).underTini().run()
	k.up()
	eventually(t, "it starts others", func() bool { return k.exists("ready") })
	for range 10 {
		if err := k.Freeze(); err != nil {
			t.Fatal(err)
		}
		for _, p := range k.family() {
			if !p.still("TtZXD") { // sh starts others by vfork
				t.Errorf("process %d runs", p.pid)
			}
		}
		if err := k.Thaw(); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Down(within(t, patience), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// The parts of a program can be frozen alone.
func TestFreezeOfAPart(t *testing.T) {
	k := prepare(t, node).underTini().run()
	k.up()
	k.wrote("ready")
	database := descent(k.wrotePID("database"))
	thaw := Freeze(database[0].pid)
	if s := states(database); s != "TT" {
		t.Errorf("the database is %s, want stopped", s)
	}
	if all := k.family(); len(present(all)) != 5 || states(all) == "TTTTT" {
		t.Errorf("the others are stopped too: %s", states(all))
	}
	thaw()
	eventually(t, "it goes on", func() bool { return states(database) == "SS" })
}

// What is frozen hears that it is to end, and is not killed for its silence.
func TestEndOfWhatIsFrozen(t *testing.T) {
	const script = "trap 'echo yes >heard; exit' TERM; echo >ready; sleep 1000 & wait"
	for name, end := range map[string]func(*kept) error{
		"Down":       func(k *kept) error { return k.Down(within(k.t, patience), syscall.SIGTERM) },
		"end of Run": (*kept).end,
	} {
		t.Run(name, func(t *testing.T) {
			k := prepare(t, script).run()
			k.up()
			k.wrote("ready")
			if err := k.Freeze(); err != nil {
				t.Fatal(err)
			}
			if err := end(k); err != nil {
				t.Error(err)
			}
			if !k.exists("heard") {
				t.Error("it did not hear")
			}
		})
	}
}

// A program that is killed while it is frozen leaves nobody behind who is stopped for ever.
func TestKillOfWhatIsFrozen(t *testing.T) {
	k := prepare(t, node).underTini().run()
	tini := k.up()
	k.wrote("ready")
	database := descent(k.wrotePID("database"))
	if err := k.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(tini, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	k.up()
	eventually(t, "its orphans go on", func() bool { return states(database) == "SS" })
}
