// Package consumer stands for the code of others: its tests use the SDK as somebody's own module does, which sees
// nothing but the public API. Each file is one user.
package consumer
