package sorteo

import (
	"context"
	"math/rand"
	"sync"
	"time"
)

// patience decides how long to pause between attempts, and when to give up: after a time without progress.
type patience struct {
	limit  time.Duration
	random *rand.Rand

	mu   sync.Mutex // a connection asks for deadlines while it is sending and receiving
	last time.Time  // the last progress

	pauses    int // since the last progress
	conflicts int // since the last progress
}

func newPatience(limit time.Duration) *patience {
	// The shared generator of math/rand starts at the same place in every process before Go 1.20. Agencies that lost
	// the same server should not return together.
	return &patience{limit: limit, last: time.Now(), random: rand.New(rand.NewSource(time.Now().UnixNano()))}
}

func (p *patience) progress() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
	p.pauses, p.conflicts = 0, 0
}

// until returns the time after the given duration, or when to give up if that is earlier.
func (p *patience) until(d time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	deadline, end := time.Now().Add(d), p.last.Add(p.limit)
	if end.Before(deadline) {
		return end
	}
	return deadline
}

func (p *patience) exhausted() bool { return time.Until(p.until(p.limit)) <= 0 }

// hopeless counts conflicts, and tells whether there were too many of them.
func (p *patience) hopeless(reason Reason) bool {
	if reason == ReasonConflict {
		p.conflicts++
	}
	return p.conflicts >= conflictsMax
}

// next returns the pause before the next attempt: twice the last one, shortened at random.
func (p *patience) next(reason Reason) time.Duration {
	pause := pauseMax
	if doubled := pauseMin << p.pauses; doubled < pauseMax && reason != ReasonStorageFull {
		pause = doubled
		p.pauses++
	}
	pause = time.Duration(float64(pause) * (0.5 + p.random.Float64()/2))
	if left := time.Until(p.until(pause)); left < pause {
		return left
	}
	return pause
}

// sleep returns early if the context ends.
func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
