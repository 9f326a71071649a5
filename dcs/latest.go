package dcs

import "iter"

// Latest runs seq in one goroutine and offers its newest element on c, for use in a select: an element that nobody
// has taken yet is replaced. c is closed when seq ends; wait then returns the final error, if any. The goroutine
// ends with the sequence: end the context that the sequence runs under, then call wait.
func Latest[T any](seq iter.Seq2[T, error]) (c <-chan T, wait func() error) {
	out := make(chan T, 1)
	done := make(chan struct{})
	var final error
	go func() {
		defer close(done)
		defer close(out)
		for v, err := range seq {
			if err != nil {
				final = err
				return
			}
			select {
			case <-out: // nobody took the older one
			default:
			}
			out <- v // the only sender: there is room
		}
	}()
	return out, func() error { <-done; return final }
}
