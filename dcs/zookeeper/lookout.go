package zookeeper

import (
	"context"
	"reflect"
	"sync"
)

// crew is how many arms one goroutine waits for: a goroutine for each would be most of what a watch costs.
const crew = 64

// lookout waits for the arms of one watch. All but the waiting is done by the watch's own goroutine.
type lookout struct {
	tasks   *sync.WaitGroup
	some    chan struct{} // something has fired; room for one
	waiting map[spot]post
	room    []*waiter // those that can take another arm

	mu    sync.Mutex
	fired []fired
}

// post says who waits for an arm.
type post struct {
	arm *arm
	by  *waiter
}

type waiter struct {
	arms int
	join chan fired // room for as many as there may be
}

// fired is an arm that has, or will.
type fired struct {
	post
	at spot
}

func newLookout(tasks *sync.WaitGroup) lookout {
	return lookout{tasks: tasks, some: make(chan struct{}, 1), waiting: make(map[spot]post)}
}

// add waits for one more, until ctx ends.
func (l *lookout) add(ctx context.Context, at spot, a *arm) {
	if len(l.room) == 0 {
		w := &waiter{join: make(chan fired, crew)}
		l.room = append(l.room, w)
		l.tasks.Go(func() { l.wait(ctx, w) })
	}
	w := l.room[len(l.room)-1]
	if w.arms++; w.arms == crew {
		l.room = l.room[:len(l.room)-1]
	}
	l.waiting[at] = post{a, w}
	w.join <- fired{post{a, w}, at}
}

// take returns what has fired since.
func (l *lookout) take() []spot {
	l.mu.Lock()
	all := l.fired
	l.fired = nil
	l.mu.Unlock()
	spots := make([]spot, len(all))
	for i, f := range all {
		if spots[i] = f.at; l.waiting[f.at].arm == f.arm {
			delete(l.waiting, f.at)
		}
		if f.by.arms--; f.by.arms == crew-1 {
			l.room = append(l.room, f.by)
		}
	}
	return spots
}

// wait waits for all that join.
func (l *lookout) wait(ctx context.Context, w *waiter) {
	receive := func(c any) reflect.SelectCase {
		return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}
	}
	cases := []reflect.SelectCase{receive(ctx.Done()), receive(w.join)}
	others := len(cases)
	var joined []fired
	for {
		switch i, v, _ := reflect.Select(cases); i {
		case 0:
			return
		case 1:
			f := v.Interface().(fired)
			joined, cases = append(joined, f), append(cases, receive(f.arm.fired))
		default:
			l.tell(joined[i-others])
			last := len(joined) - 1
			joined[i-others], cases[i] = joined[last], cases[last+others]
			joined, cases = joined[:last], cases[:last+others]
		}
	}
}

func (l *lookout) tell(f fired) {
	l.mu.Lock()
	l.fired = append(l.fired, f)
	l.mu.Unlock()
	select {
	case l.some <- struct{}{}:
	default:
	}
}
