// Package hostile runs guests that are made to hurt their host in one process
// with a guest that serves requests: `make hostile`. Its test prints, for every
// bomb, how it ended and what the good guest and the process felt of it.
package hostile
