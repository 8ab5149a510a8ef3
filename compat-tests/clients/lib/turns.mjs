// One at a time, first come first served: scenarios share a machine that has little to spare.

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
