// Waiting for conditions instead of sleeping.

export class Timeout extends Error {}

// Resolves with the first truthy value of `test`, which is called now and at every 'change' of the
// emitters. An error of `test` ends the wait.
export function until (emitters, test, { limit, what }) {
  return new Promise((resolve, reject) => {
    const end = (settle, value) => {
      clearTimeout(timer)
      emitters.forEach((emitter) => emitter.off('change', ask))
      settle(value)
    }
    const ask = () => {
      try {
        const value = test()
        if (value) {
          end(resolve, value)
        }
      } catch (error) {
        end(reject, error)
      }
    }
    const timer = setTimeout(() => {
      end(reject, new Timeout(`${typeof what === 'function' ? what() : what}: not within ${limit} ms`))
    }, limit)
    emitters.forEach((emitter) => emitter.on('change', ask))
    ask()
  })
}
