/* Search in a site that is opened from disk, where browsers allow no workers: the worker's script runs
   in a hidden frame instead, and messages go to and fro as they would. Loaded before the theme. */
if (location.protocol === "file:") {
  // By the second name the theme knows that paths are a page's.
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const script = address => `<script src="${address}"><\/script>`
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      this.loaded = new Promise(resolve => { this.inner.workerLoaded = resolve })
      this.inner.workerSays = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        this.onmessage?.(event)
      }
      const page = this.inner.document
      page.open()
      // A worker's globals: postMessage, and importScripts, which here need not have finished
      // when it returns, only before what awaits it goes on.
      page.write(`<script>
        window.postMessage = data => workerSays(data)
        window.importScripts = (...urls) => Promise.all(urls.map(url => new Promise(resolve => {
          const script = document.createElement("script")
          script.src = url
          script.onload = script.onerror = resolve
          document.head.append(script)
        })))
      <\/script>` + script(url) + "<script>workerLoaded()<\/script>")
      page.close()
    }
    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {}
  }
}
