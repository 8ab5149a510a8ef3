// Mutual exclusion in order of arrival: scenarios share a small machine.

export class Turns {
  #last = Promise.resolve()

  // Resolves with the function that ends the turn.
  take () {
    const before = this.#last
    let done
    this.#last = new Promise((resolve) => { done = resolve })
    return before.then(() => done)
  }
}
